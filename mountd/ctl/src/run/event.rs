//! `mountctl events`

use std::time::Duration;

use mooring_api::{Client, ErrorKind, Events, EventsQuery};

use crate::cli::EventsArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::render;

/// How often a daemon that went away while it was followed is asked again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Shows events; with `--follow` for as long as it is let.
///
/// # Errors
/// [`Failure`]: why they can't be shown. While following, a daemon that stops is waited for.
pub async fn run(client: &Client, output: &Output, args: EventsArgs) -> Result<(), Failure> {
    // What there is comes in pages.
    let mut after = args.after;
    loop {
        let page = client.events(EventsQuery { after, follow: false }).await?;
        let end = page.events.is_empty() || page.next <= after;
        after = show(output, page, after)?;
        if end {
            break;
        }
    }
    if args.follow { follow(client, output, after).await } else { Ok(()) }
}

/// Shows what comes after number `after`, without end.
async fn follow(client: &Client, output: &Output, mut after: u64) -> Result<(), Failure> {
    let mut ticks = tokio::time::interval(RETRY_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut lost = false;
    loop {
        match client.events(EventsQuery { after, follow: true }).await {
            Ok(page) => {
                lost = false;
                let empty = page.events.is_empty();
                after = show(output, page, after)?;
                // Whoever answers at once that there is nothing isn't asked in a tight loop.
                if empty {
                    ticks.tick().await;
                }
            }
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Retry) {
                    return Err(error.into());
                }
                if !lost {
                    output.note(&format!("{error}; waiting for it"));
                }
                lost = true;
                ticks.tick().await;
            }
        }
    }
}

/// Shows one page; gives the number to go on after.
fn show(output: &Output, page: Events, after: u64) -> Result<u64, Failure> {
    if page.gap {
        output.note(&format!("events after number {after} have been forgotten"));
    }
    for event in &page.events {
        match output.json() {
            true => output.json_line(event)?,
            false => output.line(&render::event(event))?,
        }
    }
    Ok(page.next)
}
