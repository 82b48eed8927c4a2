//! resp wire codec.
