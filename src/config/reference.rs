//! `docs/CONFIGURATION.md`, written from the table of knobs.

use std::fmt::Write;

use super::KNOBS;

/// The page as Markdown.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         <!-- Written by `flowmesh config reference`; a test fails when it is stale. -->\n\n\
         Each knob can be set in four ways; the strongest wins:\n\n\
         1. a flag: `--resp-addr 127.0.0.1:6379`\n\
         2. an environment variable: `FLOWMESH_RESP_ADDR=127.0.0.1:6379`\n\
         3. the file given by `--config FILE` or `FLOWMESH_CONFIG`, else `flowmesh.toml` in the working directory:\n\
         `resp-addr = \"127.0.0.1:6379\"`, or `resp_addr`, or `addr` under `[resp]`; keys under `[dev]` count only for `flowmesh dev`\n\
         4. the default\n\n\
         An unknown key in the file is an error that names the nearest known one. `flowmesh config show --sources` prints what counts and who said it;\n\
         `flowmesh config validate` checks without starting.\n\n\
         Addresses: `127.0.0.1:6379`, `[::1]:6379`, `localhost:6379` or `6379` (this machine, IPv4 and IPv6), `:6379` (every interface),\n\
         several with commas or as a list, `off` for none. A port of 0 takes any free one. An address that other machines reach needs a password, or a user of the catalog that can log in.\n\
         Sizes: `512`, `64KiB`, `1GiB`, `unlimited`; k, m and g count in 1024s. Durations: `500ms`, `10s`, `5m`, `24h`, `7d`, `unlimited`.\n",
    );
    let mut group = "";
    for knob in KNOBS {
        if knob.group != group {
            group = knob.group;
            let _ = write!(
                page,
                "\n## {group}\n\n| Flag and file key | Default | What it does | Why this default |\n|---|---|---|---|\n"
            );
        }
        let default = if knob.default.is_empty() {
            "none".to_owned()
        } else {
            format!("`{}`", knob.default)
        };
        let dev = knob
            .dev_default
            .map(|dev| format!("; dev: `{dev}`"))
            .unwrap_or_default();
        let _ = writeln!(
            page,
            "| `{}` | {default}{dev} | {} | {} |",
            knob.flag(),
            knob.help,
            knob.why
        );
    }
    page
}
