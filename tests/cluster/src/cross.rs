//! What builds and runs programs for arm64 on an amd64 machine: GCC's cross compiler and QEMU, Debian's packages in the
//! cache, unpacked and not installed.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::packages::unpacked;
use crate::paths::Cache;

/// Debian's packages of the compiler, with the libraries that it and its programs need.
const PACKAGES: [&str; 13] = [
    "binutils-aarch64-linux-gnu",
    "cpp-12-aarch64-linux-gnu",
    "gcc-12-aarch64-linux-gnu",
    "gcc-12-aarch64-linux-gnu-base",
    "libc6-arm64-cross",
    "libc6-dev-arm64-cross",
    "libgcc-12-dev-arm64-cross",
    "libgcc-s1-arm64-cross",
    "libisl23",
    "libmpc3",
    "libmpfr6",
    "linux-libc-dev-arm64-cross",
    "qemu-user-static",
];

/// The programs that are to be called, told where they were unpacked.
const GCC: (&str, &str) = (
    "gcc",
    r#"#!/bin/sh
usr="$(dirname "$0")/usr"
export LD_LIBRARY_PATH="$usr/lib/x86_64-linux-gnu"
lib="$usr/aarch64-linux-gnu/lib"
exec "$usr/bin/aarch64-linux-gnu-gcc-12" -isystem "$usr/aarch64-linux-gnu/include" -B"$lib" -L"$lib" "$@"
"#,
);
const AR: (&str, &str) = (
    "ar",
    r#"#!/bin/sh
usr="$(dirname "$0")/usr"
export LD_LIBRARY_PATH="$usr/lib/x86_64-linux-gnu"
exec "$usr/bin/aarch64-linux-gnu-ar" "$@"
"#,
);

/// The compiler and the emulator.
#[derive(Debug, Clone)]
pub struct Arm64 {
    folder: PathBuf,
}

impl Arm64 {
    /// Downloads and unpacks both (100 MB), unless they are there.
    pub fn provide(cache: &Cache) -> anyhow::Result<Self> {
        let scripts = [GCC, AR];
        let folder =
            unpacked(cache, "cross-arm64", &PACKAGES, &scripts.map(|(_, text)| text).concat(), |folder| {
                scripts.into_iter().try_for_each(|(name, text)| {
                    let path = folder.join(name);
                    std::fs::write(&path, text)?;
                    std::fs::set_permissions(path, Permissions::from_mode(0o755))
                })
            })?;
        Ok(Self { folder })
    }

    /// A C compiler that is called as GCC is, and links.
    pub fn compiler(&self) -> PathBuf {
        self.folder.join(GCC.0)
    }

    /// What puts objects into archives.
    pub fn archiver(&self) -> PathBuf {
        self.folder.join(AR.0)
    }

    /// Runs a program that is linked statically.
    pub fn emulator(&self) -> PathBuf {
        self.folder.join("usr/bin/qemu-aarch64-static")
    }
}
