//! The engine's figures as metrics.

use storage::{Engine, Pressure};

use super::metrics::{Encoder, Kind};

/// Writes one family per figure.
pub fn collect(out: &mut Encoder, engine: &Engine) {
    let stats = engine.stats();
    let seconds = |us: u64| us as f64 / 1e6;
    let help = "Ends of the log: appended, handed to the kernel, on disk, in the tables.";
    let mut positions = out.family("flowmesh_log_position_bytes", Kind::Gauge, help);
    for (what, lsn) in [
        ("appended", stats.appended),
        ("written", stats.written),
        ("synced", stats.synced),
        ("folded", stats.folded),
    ] {
        positions.sample(&[("end", what)], lsn.0);
    }
    for (name, kind, help, value) in [
        (
            "flowmesh_log_unfolded_bytes",
            Kind::Gauge,
            "Log that the tables do not have yet.",
            stats.unfolded_bytes,
        ),
        (
            "flowmesh_log_bytes",
            Kind::Gauge,
            "Log on disk.",
            stats.log_bytes,
        ),
        (
            "flowmesh_log_segments",
            Kind::Gauge,
            "Files of log on disk.",
            stats.log_segments,
        ),
        (
            "flowmesh_log_writes_total",
            Kind::Counter,
            "Writes to the log.",
            stats.log_writes,
        ),
        (
            "flowmesh_log_syncs_total",
            Kind::Counter,
            "Syncs of the log.",
            stats.log_syncs,
        ),
        (
            "flowmesh_log_records_total",
            Kind::Counter,
            "Records appended.",
            stats.records,
        ),
        (
            "flowmesh_folds_total",
            Kind::Counter,
            "Folds finished.",
            stats.folds,
        ),
        (
            "flowmesh_folded_rows_total",
            Kind::Counter,
            "Rows that folds wrote into the tables.",
            stats.folded_rows,
        ),
        (
            "flowmesh_table_l0_runs",
            Kind::Gauge,
            "Runs in level 0 of the larger table.",
            stats.l0_runs,
        ),
        (
            "flowmesh_table_bytes",
            Kind::Gauge,
            "Table files on disk.",
            stats.table_bytes,
        ),
    ] {
        out.family(name, kind, help).sample(&[], value);
    }
    out.family(
        "flowmesh_fold_last_seconds",
        Kind::Gauge,
        "Duration of the last fold.",
    )
    .sample(&[], seconds(stats.last_fold_us));
    out.family(
        "flowmesh_recovery_seconds",
        Kind::Gauge,
        "What the last start needed to fold the log.",
    )
    .sample(&[], seconds(stats.recovery_us));
    let pressure = match engine.pressure() {
        Pressure::None => 0,
        Pressure::Slow => 1,
        Pressure::Stop => 2,
    };
    out.family(
        "flowmesh_log_pressure",
        Kind::Gauge,
        "How far the tables are behind: 0 fine, 1 writers are slowed, 2 nearly held.",
    )
    .sample(&[], pressure);
}
