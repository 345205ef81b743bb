//! What the programs of this project show on a terminal: tables that fit, and messages that do nothing to it.

pub mod say;
pub mod table;
