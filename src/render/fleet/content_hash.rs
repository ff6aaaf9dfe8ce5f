//! Hashes of content: equal for equal content, also after a restart and in another process.

use std::{
    hash::{Hash, Hasher},
    mem,
};

use sha2::{Digest, Sha256};

use crate::domain::{FleetUsage, UsageRow};

/// 128 bits of SHA-256 over some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; ContentHash::LEN]);

/// The version of the usage of all customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetVersion {
    /// The customers, their states and their rows.
    pub rows: ContentHash,
    /// The same, and the arrival of each customer's data.
    pub rows_and_arrivals: ContentHash,
}

/// Feeds what a type hashes to SHA-256.
struct ContentHasher {
    digest: Sha256,
    /// Many short writes cost SHA-256 more than one long one.
    buffer: Vec<u8>,
}

// === impl ContentHash ===

impl ContentHash {
    /// The number of bytes.
    pub const LEN: usize = 16;

    /// Returns the hash of a value.
    pub fn of(value: &impl Hash) -> Self {
        let mut hasher = ContentHasher::default();
        value.hash(&mut hasher);
        hasher.content_hash()
    }

    /// Returns its bytes.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl From<[u8; ContentHash::LEN]> for ContentHash {
    fn from(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

// === impl FleetVersion ===

impl FleetVersion {
    /// Reads all rows: some milliseconds of CPU for thousands of customers.
    pub fn of(fleet: &FleetUsage) -> Self {
        let mut rows = ContentHasher::default();
        let mut arrivals = ContentHasher::default();
        fleet.processed_date.hash(&mut rows);
        fleet.entries.len().hash(&mut rows);
        for entry in &fleet.entries {
            entry.fetched_at.hash(&mut arrivals);
            let state = (entry.status, entry.failure, &entry.customer_name);
            (entry.customer_id, state).hash(&mut rows);
            let usage = entry.usage.as_deref();
            usage.map(|usage| usage.rows().len()).hash(&mut rows);
            for row in usage.into_iter().flat_map(|usage| usage.rows()) {
                hash_row(row, &mut rows);
            }
        }
        let rows = rows.content_hash();
        rows.hash(&mut arrivals);
        Self {
            rows,
            rows_and_arrivals: arrivals.content_hash(),
        }
    }
}

/// Hashes all that fleet answers have of a row.
fn hash_row(row: &UsageRow, hasher: &mut ContentHasher) {
    let service = (&row.service_name, &row.service_code);
    let product = (&row.product_name, &row.product_id, &row.channel);
    let licenses = (row.licenses_active, row.licenses_qualified);
    (service, product, &row.workload_name).hash(hasher);
    (licenses, row.processed_at).hash(hasher);
}

// === impl ContentHasher ===

impl ContentHasher {
    const BUFFER_BYTES: usize = 64 * 1024;

    fn content_hash(mut self) -> ContentHash {
        self.flush();
        let digest = self.digest.finalize();
        ContentHash(digest.first_chunk().copied().unwrap_or_default())
    }

    fn flush(&mut self) {
        self.digest.update(&self.buffer);
        self.buffer.clear();
    }
}

impl Default for ContentHasher {
    fn default() -> Self {
        Self {
            digest: Sha256::new(),
            buffer: Vec::with_capacity(Self::BUFFER_BYTES),
        }
    }
}

impl Hasher for ContentHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= Self::BUFFER_BYTES {
            self.flush();
        }
    }

    /// The first 64 bits; [`Self::content_hash`] has more.
    fn finish(&self) -> u64 {
        let digest = self.digest.clone().chain_update(&self.buffer).finalize();
        let bits = digest.first_chunk::<{ mem::size_of::<u64>() }>();
        u64::from_be_bytes(bits.copied().unwrap_or_default())
    }
}
