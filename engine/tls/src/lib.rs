//! Per-xstream storage: keys, slots, order of construction and destruction.
