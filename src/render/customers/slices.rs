use std::{num::NonZeroU32, sync::Arc};

use moka::policy::EvictionPolicy;

use super::CustomerFilter;
use crate::render::RenderedDocument;

/// What of a list is shown: it depends on nothing else, so whoever is shown the same shares the
/// same document, and nobody another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CustomerSlice {
    /// A bit for each customer of the list: whether its caller may see it.
    visible: Box<[u64]>,
    /// Visible customers before the page.
    start: usize,
    size: Option<NonZeroU32>,
    /// It shows in links.
    filter: Option<CustomerFilter>,
}

/// Cuts that were asked for lately.
pub(super) struct SliceCache {
    documents: moka::sync::Cache<CustomerSlice, Arc<RenderedDocument>>,
    max_bytes: u64,
}

// === impl Cut ===

impl CustomerSlice {
    pub(super) fn new(
        visible: &[bool],
        start: usize,
        size: Option<NonZeroU32>,
        filter: Option<CustomerFilter>,
    ) -> Self {
        let word = |bits: &[bool]| {
            let bits = bits.iter().rev();
            bits.fold(0_u64, |word, bit| word << 1 | u64::from(*bit))
        };
        Self {
            visible: visible.chunks(64).map(word).collect(),
            start,
            size,
            filter,
        }
    }

    pub(super) fn includes(&self, index: usize) -> bool {
        let word = self.visible.get(index / 64);
        word.is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(super) fn start(&self) -> usize {
        self.start
    }

    pub(super) fn size(&self) -> Option<NonZeroU32> {
        self.size
    }

    pub(super) fn filter(&self) -> Option<&CustomerFilter> {
        self.filter.as_ref()
    }

    fn weight(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, CustomerFilter::weight);
        size_of_val(&*self.visible) + filter
    }
}

// === impl Cuts ===

impl SliceCache {
    /// Bytes that they may take besides, however short the list.
    const MIN_BYTES: usize = 64 * 1024;

    /// Together they take at most as much as the whole does, compressed forms included, so that one
    /// who may see nearly all of it is shown what was made before.
    pub(super) fn with_capacity_for(whole_bytes: usize) -> Self {
        let max_bytes = (Self::with_compressed(whole_bytes) + Self::MIN_BYTES) as u64;
        let made = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            // The one that was asked for last is always kept, however large.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|cut: &CustomerSlice, document: &Arc<RenderedDocument>| {
                let bytes = Self::with_compressed(document.weight()) + cut.weight();
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .build();
        Self {
            documents: made,
            max_bytes,
        }
    }

    /// What is compressed later is smaller than what it is made of.
    fn with_compressed(bytes: usize) -> usize {
        2 * bytes
    }

    /// A cut as it was made before.
    pub(super) fn get(&self, cut: &CustomerSlice) -> Option<Arc<RenderedDocument>> {
        self.documents.get(cut)
    }

    /// A cut as it was made before, or made now: once, however many ask.
    ///
    /// # Errors
    ///
    /// Those of `make`, to all who waited for it.
    pub(super) fn get_or_render<E: Send + Sync + 'static>(
        &self,
        cut: CustomerSlice,
        make: impl FnOnce(&CustomerSlice) -> Result<Arc<RenderedDocument>, E>,
    ) -> Result<Arc<RenderedDocument>, Arc<E>> {
        match self.documents.get(&cut) {
            Some(made) => Ok(made),
            None => self.documents.try_get_with_by_ref(&cut, || make(&cut)),
        }
    }

    pub(super) fn weight(&self) -> usize {
        usize::try_from(self.max_bytes).unwrap_or(usize::MAX)
    }
}
