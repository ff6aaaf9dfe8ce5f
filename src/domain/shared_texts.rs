use std::{collections::HashSet, sync::Arc};

/// The texts of many rows, each in memory once: the rows of a fleet have few different names.
#[derive(Clone, Debug, Default)]
pub struct SharedTexts(HashSet<Arc<str>>);

// === impl SharedTexts ===

impl SharedTexts {
    /// Returns the shared copy of a text.
    pub fn share(&mut self, text: impl AsRef<str> + Into<Arc<str>>) -> Arc<str> {
        if let Some(shared) = self.0.get(text.as_ref()) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = text.into();
        self.0.insert(Arc::clone(&shared));
        shared
    }
}
