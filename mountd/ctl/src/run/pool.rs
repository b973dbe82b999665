//! `mountctl pool ...`

use mooring_api::{AddPool, Client, ForceQuery, Pool, PoolId, TaskKind};

use crate::cli::{PoolCommand, PoolRef};
use crate::failure::Failure;
use crate::output::Output;
use crate::run::absolute;
use crate::{progress, render};

/// Does one of the commands.
///
/// # Errors
/// [`Failure`]: why it wasn't done.
pub async fn run(client: &Client, output: &Output, command: PoolCommand) -> Result<(), Failure> {
    match command {
        PoolCommand::Add { path, size, class, force } => {
            let request = AddPool { path: absolute(&path)?, size, class, force };
            let pool = tokio::select! {
                pool = client.add_pool(&request) => pool?,
                () = progress::watch(client, output, TaskKind::MeasurePool, &request.path) => {
                    unreachable!("it watches for as long as it is let")
                }
            };
            output.answer(&pool, |pool, _| added_text(pool))
        }
        PoolCommand::Ls => output.answer(&client.pools().await?, |p, look| render::pools(p, look)),
        PoolCommand::Inspect { pool } => {
            let id = find(client, pool).await?;
            output.answer(&client.pool(id).await?, render::pool)
        }
        PoolCommand::Rm { pool, force, no_wait } => {
            let id = find(client, pool).await?;
            let task = client.remove_pool(id, ForceQuery { force }).await?;
            let task = match no_wait {
                true => task,
                false => progress::follow(client, output, task).await?,
            };
            output.answer(&task, render::task)
        }
    }
}

/// The number of a pool that was named.
async fn find(client: &Client, pool: PoolRef) -> Result<PoolId, Failure> {
    let path = match pool {
        PoolRef::Id(id) => return Ok(id),
        PoolRef::Path(path) => absolute(&path)?,
    };
    let here = client.status().await?.node.name;
    let pools = client.pools().await?;
    let found = pools.iter().find(|pool| pool.node == here && pool.path == path);
    found.map(|pool| pool.id).ok_or(Failure::NoSuchPool { path })
}

fn added_text(pool: &Pool) -> String {
    let class = match (pool.class, pool.class_set) {
        (Some(class), true) => format!("class {}", render::word(&class)),
        (Some(class), false) => format!("class {} (measured)", render::word(&class)),
        (None, _) => "class not known yet".to_owned(),
    };
    let speed = pool.speed.map_or_else(String::new, |speed| {
        format!(
            "\n  {} durable 4 KiB writes/s and {} reads/s at random; {}/s written and {}/s read in sequence",
            speed.random_write_iops, speed.random_read_iops, speed.write_bandwidth, speed.read_bandwidth
        )
    });
    format!("pool {} on {}: {}, {}, {class}{speed}", pool.id, pool.node, pool.path, pool.size)
}
