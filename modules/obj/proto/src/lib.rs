//! What obj and its clients say to each other: opcodes, messages, placement.
