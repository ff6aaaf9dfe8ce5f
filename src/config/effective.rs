use super::{Config, keys};

impl Config {
    /// The configuration in force, as TOML that loads back to the same.
    ///
    /// A comment on each line says where the value came from. Of secrets it holds only the paths
    /// of their files, so it may be logged.
    pub fn effective(&self) -> String {
        let mut text = String::new();
        let mut table = "";
        for key in keys::ALL {
            let Some(value) = key.toml(self) else {
                continue;
            };
            let (of_table, name) = key.name().rsplit_once('.').unwrap_or(("", key.name()));
            if of_table != table {
                let gap = if table.is_empty() { "" } else { "\n" };
                text.push_str(&format!("{gap}[{of_table}]\n"));
                table = of_table;
            }
            text.push_str(&format!(
                "{name} = {value} # {}\n",
                self.source_of(key.name())
            ));
        }
        text
    }

    fn source_of(&self, name: &str) -> String {
        self.sources.get(name).map_or_else(
            || "default".to_owned(),
            |place| place.to_string().replace(char::is_control, "\u{fffd}"),
        )
    }
}
