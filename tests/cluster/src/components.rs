//! What machines are made of, in the cache: a Debian tree with the container runtimes and CRIU, and
//! Kubernetes' programs built from its Go module; CRI-O likewise, as Debian does not have it.
//!
//! Each has a folder whose name says what it was made from, so that it is made once and never stale.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::paths::Cache;
use crate::process::{find_program, output};
use crate::runtime::Runtime;

/// Debian's release that machines run: stable's CRIU does not run on current kernels.
const RELEASE: &str = "sid";

/// What machines have of Debian beyond its minimal base.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "ca-certificates",
    "checkpointctl",
    "conmon",
    "containerd",
    "containernetworking-plugins",
    "criu",
    "crun",
    "curl",
    "etcd-server",
    "iproute2",
    "iptables",
    "kubernetes-client",
    "libcriu2",
    "libfaketime",
    "procps",
    "runc",
    "skopeo",
    "util-linux",
];

/// Kubernetes' module file: which version, and which of its programs.
const GO_MOD: &str = include_str!("../kubernetes/go.mod");
const GO_SUM: &str = include_str!("../kubernetes/go.sum");

/// CRI-O's module file: which version. What that is made from, its own module file says.
const CRIO_MOD: &str = include_str!("../crio/go.mod");
const CRIO_SUM: &str = include_str!("../crio/go.sum");

/// How CRI-O is built: without what would take libraries of C.
const CRIO_BUILD: &[&str] = &[
    "build",
    "-trimpath",
    "-ldflags=-s -w",
    "-tags=containers_image_openpgp exclude_graphdriver_btrfs",
    "./cmd/crio",
];

/// How its helper is compiled that holds namespaces open: for any libc.
const PINNS_BUILD: &[&str] = &["-std=c99", "-Os", "-static", "-o", "pinns"];

/// The oldest Go that builds them.
pub(crate) const GO_VERSION: (u32, u32) = (1, 26);

/// Where the parts are.
#[derive(Debug, Clone)]
pub struct Components {
    /// The Debian tree.
    pub debian: PathBuf,
    /// The folder of Kubernetes' programs.
    pub kubernetes: PathBuf,
    /// The folder of CRI-O's programs, if nodes are to have it.
    pub crio: Option<PathBuf>,
}

/// What this machine lacks to run a cluster, each in a few words; none if it lacks nothing.
pub fn missing(runtime: Runtime) -> Vec<String> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root".to_owned());
    }
    if !Path::new("/etc/debian_version").exists() {
        missing.push("Debian".to_owned());
    }
    if crate::cgroups::hierarchies().is_empty() {
        missing.push("cgroup version 1 hierarchies in /sys/fs/cgroup".to_owned());
    }
    let programs = ["apt-get", "dpkg-deb", "chroot", "ip", "mount", "nsenter", "setsid", "unshare"];
    missing.extend(programs.iter().filter(|name| find_program(name).is_none()).map(ToString::to_string));
    match go_version() {
        Some(version) if version >= GO_VERSION => {}
        _ => missing.push(format!("Go {}.{} or newer", GO_VERSION.0, GO_VERSION.1)),
    }
    if runtime == Runtime::CriO && !compiles_c() {
        missing.push("a C compiler with a static libc".to_owned());
    }
    missing
}

/// Whether there is a compiler for `pinns`. Of a file that it does not have, a compiler repeats the name.
fn compiles_c() -> bool {
    let found = output(Command::new("cc").arg("-print-file-name=libc.a"));
    found.is_ok_and(|path| Path::new(path.trim()).is_absolute())
}

pub(crate) fn go_version() -> Option<(u32, u32)> {
    let text = output(Command::new("go").args(["env", "GOVERSION"])).ok()?;
    let mut numbers = text.trim().strip_prefix("go")?.split(|sign: char| !sign.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The version of Kubernetes that the module file pins, without the `v`.
pub fn kubernetes_version() -> anyhow::Result<&'static str> {
    let line = GO_MOD.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"));
    line.and_then(|line| line.split_whitespace().next()).context("go.mod names no version of Kubernetes")
}

impl Components {
    /// Where they would be.
    fn of(cache: &Cache, runtime: Runtime) -> Self {
        let debian = key(&[RELEASE, &PACKAGES.join(" ")]);
        let kubernetes = key(&[GO_MOD, GO_SUM, &build_arguments().join(" ")]);
        let crio = key(&[CRIO_MOD, CRIO_SUM, &CRIO_BUILD.join(" "), &PINNS_BUILD.join(" ")]);
        Self {
            debian: cache.folder(&format!("debian-{debian}")),
            kubernetes: cache.folder(&format!("kubernetes-{kubernetes}")),
            crio: (runtime == Runtime::CriO).then(|| cache.folder(&format!("crio-{crio}"))),
        }
    }

    /// Makes what is not there yet; says so, as it takes minutes.
    pub fn provide(cache: &Cache, runtime: Runtime) -> anyhow::Result<Self> {
        let missing = missing(runtime);
        ensure!(
            missing.is_empty(),
            "this machine cannot run the test cluster; it lacks {}",
            missing.join(", ")
        );
        let components = Self::of(cache, runtime);
        std::thread::scope(|scope| {
            let debian = scope.spawn(|| once(&components.debian, |folder| make_debian(cache, folder)));
            once(&components.kubernetes, |folder| make_kubernetes(cache, folder))?;
            if let Some(crio) = &components.crio {
                once(crio, |folder| make_crio(cache, folder))?;
            }
            debian.join().map_err(|_| anyhow::anyhow!("making the Debian tree panicked"))?
        })?;
        Ok(components)
    }
}

pub(crate) fn key(made_from: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in made_from {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a folder of the cache unless it is there: whole, or not at all.
pub(crate) fn once(folder: &Path, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let parent = folder.parent().context("the cache is the root folder")?;
    std::fs::create_dir_all(parent)?;
    // Two who find it missing: the second one waits, and finds it made.
    let lock = File::create(folder.with_extension("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if folder.exists() {
        return Ok(());
    }
    let partial = folder.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    std::fs::create_dir(&partial)?;
    let begin = Instant::now();
    eprintln!("making {} (once) …", folder.display());
    make(&partial).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::rename(&partial, folder)?;
    eprintln!("made {} in {:.0} s", folder.display(), begin.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a long command; its words go to a log that is shown if it fails.
pub(crate) fn run(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let file = File::create(log)?;
    let status = command
        .stdin(std::process::Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        let mut text = String::new();
        File::open(log)?.read_to_string(&mut text)?;
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(15)..].join("\n");
        anyhow::bail!("{command:?} failed ({status}); {} ends with:\n{end}", log.display());
    }
    Ok(())
}

/// A minimal Debian with our packages. Nothing of the host's own packages is touched: debootstrap
/// itself is only unpacked.
fn make_debian(cache: &Cache, tree: &Path) -> anyhow::Result<()> {
    let packages = cache.folder("packages");
    let bootstrap = cache.folder("debootstrap");
    std::fs::create_dir_all(packages.join("partial"))?;
    std::fs::create_dir_all(&bootstrap)?;
    let log = |step: &str| cache.folder(&format!("debian-{step}.log"));
    let mirror = debian_mirror()?;
    run(Command::new("apt-get").args(["download", "debootstrap"]).current_dir(&bootstrap), &log("download"))?;
    for entry in std::fs::read_dir(&bootstrap)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").args([&path, &bootstrap]), &log("unpack"))?;
        }
    }
    // Whoever is interrupted begins anew, so nothing needs to be on the disk at once.
    let dpkg = tree.join("etc/dpkg/dpkg.cfg.d");
    std::fs::create_dir_all(&dpkg)?;
    std::fs::write(dpkg.join("unsafe-io"), "force-unsafe-io\n")?;
    let mut debootstrap = Command::new(bootstrap.join("usr/sbin/debootstrap"));
    debootstrap
        .env("DEBOOTSTRAP_DIR", bootstrap.join("usr/share/debootstrap"))
        .arg("--variant=minbase")
        .arg(format!("--cache-dir={}", packages.display()))
        .arg(RELEASE)
        .arg(tree)
        .arg(&mirror);
    run(&mut debootstrap, &log("bootstrap"))?;
    // No daemon may start in there.
    let policy = tree.join("usr/sbin/policy-rc.d");
    std::fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
    output(Command::new("chmod").arg("755").arg(&policy))?;
    let script = format!(
        "mount --bind \"$PACKAGES\" \"$TREE/var/cache/apt/archives\" && mount -t proc proc \"$TREE/proc\" &&
         mount -t tmpfs tmpfs \"$TREE/run\" && exec chroot \"$TREE\" apt-get install --yes \
         --no-install-recommends -o APT::Keep-Downloaded-Packages=true {}",
        PACKAGES.join(" ")
    );
    let mut install = Command::new("unshare");
    install
        .args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh", "-c", &script])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("PACKAGES", &packages)
        .env("TREE", tree);
    run(&mut install, &log("install"))
}

/// The mirror that this machine's apt uses.
fn debian_mirror() -> anyhow::Result<String> {
    let ask = || {
        let format = ["indextargets", "--format", "$(REPO_URI)", "Label: Debian", "Created-By: Packages"];
        output(Command::new("apt-get").args(format))
    };
    let mut text = ask()?;
    if text.trim().is_empty() || find_debootstrap().is_err() {
        output(Command::new("apt-get").arg("update"))?;
        text = ask()?;
    }
    Ok(text.lines().next().context("apt knows no mirror of Debian: see /etc/apt/sources.list")?.to_owned())
}

/// Whether apt's lists name what is to be downloaded: on a new machine they may be empty.
fn find_debootstrap() -> anyhow::Result<()> {
    let shown = output(Command::new("apt-cache").args(["show", "--no-all-versions", "debootstrap"]))?;
    ensure!(shown.contains("Package: debootstrap"), "apt does not know debootstrap");
    Ok(())
}

fn build_arguments() -> Vec<String> {
    let version = kubernetes_version().unwrap_or_default();
    let minor = version.split('.').nth(1).unwrap_or_default();
    let package = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {package}.gitVersion=v{version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
    );
    ["build", "-trimpath", "-ldflags", &flags].map(str::to_owned).to_vec()
}

/// Go, with caches beside what it builds so that the user's stay as they are.
pub(crate) fn go(cache: &Cache, folder: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(folder)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-modcacherw")
        .env("GOWORK", "off")
        .env("GOCACHE", cache.folder("go/build"))
        .env("GOMODCACHE", cache.folder("go/mod"));
    go
}

/// Makes a module of these files.
pub(crate) fn make_module(folder: &Path, files: [&str; 2]) -> anyhow::Result<()> {
    std::fs::create_dir(folder)?;
    std::fs::write(folder.join("go.mod"), files[0])?;
    Ok(std::fs::write(folder.join("go.sum"), files[1])?)
}

/// Kubernetes' programs.
fn make_kubernetes(cache: &Cache, folder: &Path) -> anyhow::Result<()> {
    let module = folder.join("module");
    make_module(&module, [GO_MOD, GO_SUM])?;
    let mut build = go(cache, &module);
    build.args(build_arguments()).arg("-o").arg(folder).arg("tool");
    run(&mut build, &cache.folder("kubernetes-build.log"))?;
    Ok(std::fs::remove_dir_all(&module)?)
}

/// CRI-O and its helper `pinns`, built in a copy of its module: so its own sums say what its many parts
/// must be, and ours what it must be itself.
fn make_crio(cache: &Cache, folder: &Path) -> anyhow::Result<()> {
    let (module, source) = (folder.join("module"), folder.join("source"));
    make_module(&module, [CRIO_MOD, CRIO_SUM])?;
    run(go(cache, &module).args(["mod", "download"]), &cache.folder("crio-download.log"))?;
    let list = ["list", "-m", "-f", "{{.Dir}}", "github.com/cri-o/cri-o"];
    let downloaded = output(go(cache, &module).args(list))?;
    output(Command::new("cp").args(["-r", downloaded.trim()]).arg(&source))?;
    let mut build = go(cache, &source);
    build.args(&CRIO_BUILD[..1]).arg("-o").arg(folder).args(&CRIO_BUILD[1..]);
    run(&mut build, &cache.folder("crio-build.log"))?;
    let mut sources: Vec<PathBuf> = std::fs::read_dir(source.join("pinns/src"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    run(
        Command::new("cc").args(PINNS_BUILD).args(&sources).current_dir(folder),
        &cache.folder("pinns-build.log"),
    )?;
    std::fs::remove_dir_all(&module)?;
    Ok(std::fs::remove_dir_all(&source)?)
}
