//! When the allocator gives memory back to the system.

/// Blocks from this size on are given back when they are freed. glibc begins with 128 KiB, and takes the size of each
/// larger block that is freed for the new limit, up to 32 MiB (`mallopt(3)`): after the first plan of a large directory,
/// nearly everything that is freed would be kept.
const GIVEN_BACK: libc::c_int = 4 << 20;

/// Has the allocator give large blocks back to the system when they are freed, for as long as the process lives. Does
/// nothing where the allocator is not glibc's.
pub fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "no crate wraps this call")]
    // SAFETY: it takes two integers, and may be called at any time.
    unsafe {
        // It returns 0 where it refuses the value: then everything is as without it.
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK);
    }
}
