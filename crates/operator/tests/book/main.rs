//! The book in `docs/book`: what can be known of it without mdBook. Its links lead somewhere, its manifests are valid, its
//! commands exist, and those that need no cluster are run and print what the book says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod commands;
mod links;
mod manifests;
mod names;
mod reference;
mod shell;
mod source;
