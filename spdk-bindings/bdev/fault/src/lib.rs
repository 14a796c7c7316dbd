//! Delays, errors, torn and lost writes, wrapped round any other device.
