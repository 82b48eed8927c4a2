//! kafka wire codec.
