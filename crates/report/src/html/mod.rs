//! One page of HTML that says how runs went: no network, no other file, light and dark, from a phone's width on.

mod chart;
mod curves;
mod page;
mod picture;
mod split;

pub use page::{Fact, LrPoint, RunPage, Sample, write_page};
pub use picture::Picture;
pub use split::{Answer, Explained, Mistake, SplitPage, most_confident_mistakes};
