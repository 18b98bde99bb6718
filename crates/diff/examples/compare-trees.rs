//! Makes a layer of what differs between two directories and tells how long it took: for profiles and comparisons.
//!
//! ```text
//! compare-trees lower upper [media type]
//! ```

use std::sync::Arc;
use std::time::Instant;

use content::local::LocalStore;
use diff::{CompareOptions, Differ as _, WalkingDiffer};
use types::mount::Mount;
use types::{Error, Result, ResultExt};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(lower), Some(upper)) = (args.next(), args.next()) else {
        return Err(Error::invalid("usage: compare-trees LOWER UPPER [MEDIA-TYPE]"));
    };
    let dir = std::env::temp_dir().join(format!("compare-trees-{}", std::process::id()));
    let store = LocalStore::open(&dir)?;
    let bind = |source: String| {
        let options = vec!["ro".to_owned(), "rbind".to_owned()];
        Mount { kind: "bind".into(), source, target: String::new(), options }
    };
    let options = CompareOptions { media_type: args.next().unwrap_or_default(), ..Default::default() };
    let begun = Instant::now();
    let differ = WalkingDiffer::new(Arc::clone(&store) as _);
    let layer = differ.compare(&[bind(lower)], &[bind(upper)], options).await?;
    println!("{} {} bytes in {:?}", layer.digest, layer.size, begun.elapsed());
    std::fs::remove_dir_all(&dir).context(|| format!("remove {dir:?}"))
}
