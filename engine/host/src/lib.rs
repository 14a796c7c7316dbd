//! Answers the call-backs of the module ABI.
