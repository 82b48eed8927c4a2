//! What the server says about itself: metrics and logs.

pub mod heap;
pub mod log;
pub mod metrics;
pub mod objects;
pub mod process;
pub mod storage;
pub mod traffic;
