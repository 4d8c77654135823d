//! Attacks on what this crate promises, behind `mapfall torture`.
//!
//! [`mod@file`] takes a file away under its readers: another process cuts it, lets it grow, punches holes into it,
//! writes it again and gives its name to another, while every read is held against what the file was at that moment.
//! [`sim`] is a whole store over a simulated file: one seed decides what is done, who runs when, and what fails.

pub mod file;
pub mod sim;
