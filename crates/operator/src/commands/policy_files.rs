//! The policy files of `gc`: reading them, and following them while it watches.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use checkpoint_keeper_api::is_same_path;
use checkpoint_keeper_api::manifest::{self, LARGEST_FILE, Loaded};
use checkpoint_keeper_core::policy::{InvalidPolicy, Kind, PolicyRef, PolicySet, Precedence};
use checkpoint_keeper_core::policy_lint;

use crate::failure::{Failure, say};
use checkpoint_keeper_runtime::cluster::credentials::read_bounded;

/// How long a changed file must have been left alone before it is read: half a file may be a whole policy.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// The files, and what was read of those that can be read only once.
pub(super) struct PolicyFiles {
    paths: Vec<PathBuf>,
    directory: PathBuf,
    /// The text of standard input and of pipes.
    read_once: Vec<Option<String>>,
    /// The versions that were read last.
    held: Vec<Version>,
}

/// What tells one version of a file from another: device, inode, size and times; none where it is not there.
type Version = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

impl PolicyFiles {
    /// Policies for archives in `directory`.
    pub(super) fn new(paths: &[PathBuf], directory: &Path) -> Self {
        Self {
            paths: paths.to_vec(),
            directory: directory.to_owned(),
            read_once: vec![None; paths.len()],
            held: Vec::new(),
        }
    }

    /// Reads all of them. Errors: everything that is wrong, a complaint each.
    pub(super) fn load(&mut self) -> Result<Loaded, Vec<String>> {
        let (mut files, mut complaints) = (Vec::new(), Vec::new());
        self.held = self.versions();
        for (path, read_once) in self.paths.iter().zip(&mut self.read_once) {
            let name = path.display().to_string();
            match read(path, read_once) {
                Ok(text) => files.push((name, text)),
                Err(error) => complaints.push(format!("{name}: cannot be read: {error}")),
            }
        }
        if !complaints.is_empty() {
            return Err(complaints);
        }
        manifest::load_for(&files, |path| is_here(path, &self.directory))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    fn versions(&self) -> Vec<Version> {
        let version = |path: &PathBuf| {
            // What can be read only once has no second version.
            let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
            let times = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
            Some((found.dev(), found.ino(), found.size(), times.0, times.1))
        };
        self.paths.iter().map(version).collect()
    }

    /// Follows the files on a thread of its own: looks whether they changed at every interval, reads them again
    /// when they did, and on SIGHUP in any case. `tell` is given the policies that hold from then on. While a file
    /// is wrong, retention policies delete nothing, and the storage policies among `last_good`, or of whatever was
    /// read without an error later, go on.
    pub(super) fn follow(
        mut self,
        mut last_good: PolicySet,
        interval: Duration,
        tell: impl Fn(PolicySet) + Send + 'static,
    ) -> anyhow::Result<()> {
        let (hung_up, trigger) = UnixStream::pair().context("cannot make a pipe for signals")?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGHUP, trigger)
            .context("cannot listen for signals")?;
        let mut wrong = Vec::new();
        let work = move || {
            // What changed is looked at again sooner: it is read once it has been left alone.
            let mut seen: Option<Vec<Version>> = None;
            while let Ok(asked) = wait(&hung_up, if seen.is_some() { LEFT_ALONE } else { interval }) {
                let before = self.versions();
                let changed = before != self.held;
                let was_left_alone = changed && seen.as_ref() == Some(&before);
                if !asked && !was_left_alone {
                    seen = changed.then_some(before);
                    continue;
                }
                let loaded = self.load();
                if self.versions() != before {
                    seen = Some(before);
                    continue;
                }
                seen = None;
                match loaded {
                    Ok(loaded) => {
                        tell(loaded.policies.clone());
                        say("note", "the policies were read again and hold from now on");
                        say_all(&loaded);
                        wrong.clear();
                        last_good = loaded.policies;
                    }
                    Err(complaints) => {
                        if complaints != wrong {
                            // First, so that it is true once it is said.
                            tell(without_retention(&last_good));
                            complaints.iter().for_each(|complaint| say("error", complaint));
                            say("error", what_goes_on(&last_good));
                            wrong = complaints;
                        }
                    }
                }
            }
        };
        std::thread::Builder::new()
            .name("policies".to_owned())
            .spawn(work)
            .context("cannot start a thread")?;
        Ok(())
    }
}

/// What deletes while a file is wrong.
fn what_goes_on(last_good: &PolicySet) -> &'static str {
    if last_good.storage.is_empty() {
        "until that is mended, nothing is deleted"
    } else {
        "until that is mended, only storage policies delete, as they were read last"
    }
}

/// The same policies while a file has errors. It is unknown which archives its policies were to govern, so the file
/// counts as an invalid policy that overrides all others: no retention policy deletes anything.
fn without_retention(last_good: &PolicySet) -> PolicySet {
    let id = PolicyRef {
        kind: Kind::ClusterCheckpointPolicy,
        namespace: None,
        name: "policy-files".to_owned(),
        part: None,
    };
    let invalid = vec![InvalidPolicy { id, namespace: None, precedence: Precedence::Override }];
    PolicySet { invalid, ..last_good.clone() }
}

/// Waits for a signal, or that long; says whether there was one.
fn wait(mut hung_up: &UnixStream, time: Duration) -> std::io::Result<bool> {
    use std::io::{ErrorKind, Read};
    hung_up.set_read_timeout(Some(time))?;
    match hung_up.read(&mut [0; 64]) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is to be said of policies that were read.
pub(super) fn say_all(loaded: &Loaded) {
    loaded.notes.iter().for_each(|note| say("note", note));
    loaded.warnings.iter().for_each(|warning| say("warning", warning));
    for found in policy_lint::without_effect(&loaded.policies) {
        say("warning", found);
    }
}

/// The text of a file, with a bound; what can be read only once is remembered.
fn read(path: &Path, read_once: &mut Option<String>) -> std::io::Result<String> {
    if let Some(text) = read_once {
        return Ok(text.clone());
    }
    let most = LARGEST_FILE as u64;
    if path == Path::new("-") {
        let text = read_bounded(std::io::stdin().lock(), most)?;
        return Ok(read_once.insert(text).clone());
    }
    let file = File::open(path)?;
    let is_file = file.metadata()?.is_file();
    let text = read_bounded(file, most)?;
    if !is_file {
        *read_once = Some(text.clone());
    }
    Ok(text)
}

/// Whether a path that an object names is the directory, by its parts or by where both lead to.
fn is_here(path: &str, directory: &Path) -> bool {
    let same = |directory: &Path| is_same_path(path, &directory.to_string_lossy());
    same(directory)
        || directory.canonicalize().is_ok_and(|leads| {
            same(&leads) || Path::new(path).canonicalize().is_ok_and(|other| other == leads)
        })
}

impl From<Vec<String>> for Failure {
    fn from(complaints: Vec<String>) -> Self {
        Self::Usage(complaints)
    }
}
