//! What a walk over a tar reads from, and how it can stop.

use std::borrow::Cow;
use std::io;

/// Why a walk did not reach the end of the tar.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    /// The source failed; the bytes are not to blame.
    #[error("failed to read the archive")]
    Source(#[from] io::Error),
    /// The bytes ended too early: an incomplete archive.
    #[error("{0}")]
    CutOff(Cow<'static, str>),
    /// The packed bytes ended before a checksum, and what was unpacked is not vouched for: an incomplete archive.
    #[error("{0}")]
    Unchecked(Cow<'static, str>),
    /// The bytes contradict themselves: a damaged archive, if they are one at all.
    #[error("{0}")]
    Contradiction(Cow<'static, str>),
    /// The bytes are no archive, or would cost more than one is worth.
    #[error("{0}")]
    Refused(Cow<'static, str>),
}

impl Stop {
    pub(super) fn cut_off(problem: &'static str) -> Self {
        Self::CutOff(Cow::Borrowed(problem))
    }

    pub(super) fn contradiction(problem: &'static str) -> Self {
        Self::Contradiction(Cow::Borrowed(problem))
    }

    pub(super) fn refused(problem: &'static str) -> Self {
        Self::Refused(Cow::Borrowed(problem))
    }
}

/// A tar's bytes, in order.
pub(super) trait Input {
    /// What is said where they end within a member's data, whether that was asked for or not.
    const ENDS_WITHIN_DATA: &'static str;

    /// Fills the buffer; how many bytes there were, fewer than asked for only at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Stop>;

    /// Passes over that many bytes, all of which have to be there.
    fn skip(&mut self, bytes: u64) -> Result<(), Stop>;

    /// Fails if it is known already that so many bytes are not there.
    fn expect(&self, bytes: u64) -> Result<(), Stop>;

    /// Reads exactly so many bytes. Memory grows with what is really there, not with what a header
    /// promises.
    fn take(&mut self, bytes: u64) -> Result<Vec<u8>, Stop> {
        const STEP: usize = 64 << 10;
        let mut data = Vec::new();
        loop {
            let done = data.len();
            let left = bytes.saturating_sub(done as u64);
            if left == 0 {
                return Ok(data);
            }
            let step = usize::try_from(left).unwrap_or(usize::MAX).min(STEP.max(done));
            data.resize(done.saturating_add(step), 0);
            let part = data.get_mut(done..).unwrap_or_default();
            if self.fill(part)? < step {
                return Err(Stop::cut_off(Self::ENDS_WITHIN_DATA));
            }
        }
    }
}
