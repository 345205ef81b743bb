//! Results, for people and for programs. What is shown is made here first, as plain data, so that
//! the table and the JSON cannot disagree.

pub mod audit;
pub mod blocks;
pub mod inspection;
pub mod json;
pub mod summary;

pub mod text;
