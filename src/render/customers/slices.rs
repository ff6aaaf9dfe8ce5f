//! The parts of a list of customers that were requested lately.

use std::{num::NonZeroU32, sync::Arc};

use moka::policy::EvictionPolicy;

use super::{
    super::document::{RenderedDocument, with_compressed},
    filter::CustomerFilter,
};

/// A part of the list. Its document depends on nothing else, so callers that see the same part share
/// the same document, and never see another caller's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CustomerSlice {
    /// A bit for each customer of the list: 1 if the caller may see it.
    visible: Box<[u64]>,
    /// The number of visible customers before the page.
    pub(super) start: usize,
    pub(super) size: Option<NonZeroU32>,
    /// Part of the links.
    pub(super) filter: Option<CustomerFilter>,
}

#[derive(Debug)]
pub(super) struct SliceCache {
    documents: moka::sync::Cache<CustomerSlice, Arc<RenderedDocument>>,
    max_bytes: usize,
}

// === impl CustomerSlice ===

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

    fn weight(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, CustomerFilter::weight);
        size_of_val(&*self.visible) + filter
    }
}

// === impl SliceCache ===

impl SliceCache {
    /// The capacity for the slices of a short list.
    const MIN_BYTES: usize = 64 * 1024;

    /// A cache that takes at most as much memory as the whole list with its compressed bodies, so that
    /// the slice of a caller who may see nearly all of it is kept.
    pub(super) fn with_capacity_for(whole_bytes: usize) -> Self {
        let max_bytes = with_compressed(whole_bytes) + Self::MIN_BYTES;
        let documents = moka::sync::Cache::builder()
            .max_capacity(max_bytes as u64)
            // It always keeps the slice that was requested last, however large.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|slice: &CustomerSlice, document: &Arc<RenderedDocument>| {
                let bytes = with_compressed(document.weight()) + slice.weight();
                u32::try_from(bytes).unwrap_or(u32::MAX)
            })
            .build();
        Self {
            documents,
            max_bytes,
        }
    }

    pub(super) fn get(&self, slice: &CustomerSlice) -> Option<Arc<RenderedDocument>> {
        self.documents.get(slice)
    }

    /// Returns a slice, rendered once for concurrent requests.
    pub(super) fn get_or_render(
        &self,
        slice: &CustomerSlice,
        render: impl FnOnce() -> RenderedDocument,
    ) -> Arc<RenderedDocument> {
        self.documents.get_with_by_ref(slice, || Arc::new(render()))
    }

    pub(super) fn weight(&self) -> usize {
        self.max_bytes
    }
}
