//! Bounded MPSC and SPSC rings, and the message that fits into a slot.
