//! The only unsafe code of this program: calls of the C library that neither rustix nor nix wraps.

pub mod lease;
pub mod memory;
