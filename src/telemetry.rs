//! What the server says about itself: metrics and logs.

pub mod log;
pub mod metrics;
pub mod process;
pub mod storage;
pub mod traffic;
