//! A device that does nothing, quickly: the ceiling of the block layer.
