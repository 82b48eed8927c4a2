//! Tests of the engine as its callers see it. One binary, one module per way to hurt it.

mod ahead;
mod backups;
mod bodies;
mod faults;
mod feed;
mod fold_crash;
mod forgetful;
mod kill;
mod model;
mod power;
mod reader;
mod recovery;
mod rng;
mod support;
mod torn;
mod waves;
