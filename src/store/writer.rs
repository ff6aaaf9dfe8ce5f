use super::StoreWrite;
/// x
#[derive(Clone, Debug)]
pub struct StoreWriter;
impl StoreWriter {
    /// x
    pub fn record(&self, _: StoreWrite) {}
}
