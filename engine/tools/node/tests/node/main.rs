//! Hosts made out of files: every planted fault is found, everything that is prepared can be released.

mod doctor;
mod kernel;
mod prepare;
mod tree;
