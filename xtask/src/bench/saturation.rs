//! A disk that is kept busy by a process of its own: writers that each write and `fsync`, again and again.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::ensure;

use super::timing::{self, Times};

/// Several, so that there is something to write while one waits for the end of its `fsync`.
const WRITERS: usize = 4;

/// What each writes between two of them, and until it begins anew.
const EACH: usize = 8 << 20;
const ROUND: u64 = 16;

/// The process. It ends when this does.
pub(super) struct Saturation(Child);

impl Saturation {
    /// Starts one that writes into a directory.
    pub(super) fn start(directory: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--saturate"]).arg(directory);
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?))
    }

    /// Ends it. An error where it ended before.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        ensure!(self.0.try_wait()?.is_none(), "the disk was not kept busy all the time");
        Ok(())
    }
}

impl Drop for Saturation {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Is such a process, until standard input ends or it cannot write.
pub(super) fn run(directory: &Path) -> anyhow::Result<()> {
    let (ended, end) = mpsc::channel();
    for number in 0..WRITERS {
        let file = File::create(directory.join(format!("saturation-{number}")))?;
        let ended = ended.clone();
        thread::spawn(move || ended.send(write(&file)));
    }
    thread::spawn(move || ended.send(std::io::stdin().read_to_end(&mut Vec::new()).map(drop)));
    Ok(end.recv()??)
}

fn write(file: &File) -> std::io::Result<()> {
    let block = vec![0xa5; EACH];
    for round in (0..ROUND).cycle() {
        file.write_all_at(&block, round * EACH as u64)?;
        file.sync_data()?;
    }
    Ok(())
}

/// How long a small write takes there until it is on the disk.
pub(super) fn writes(directory: &Path, count: usize) -> anyhow::Result<Times> {
    let mut file = File::create(directory.join("written"))?;
    timing::rounds(count, || {
        file.write_all(&[0xa5; 4 << 10])?;
        Ok(file.sync_data()?)
    })
}
