//! Opens modules, checks them, orders them, drives their life cycle. Never unloads a library.
