//! Tests of the engine as its callers see it. One binary, one module per way to hurt it.

mod fold_crash;
mod model;
mod support;
