//! `mountctl node ...`

use clap::{ArgGroup, Subcommand};
use mooring_api::{Label, LabelKey, NodeName};

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    Ls,
    /// Show one node with its pools and attachments
    Inspect {
        /// Which node
        node: NodeName,
    },
    /// Set labels of a node; zone, rack and region steer placement
    #[command(group = ArgGroup::new("change").args(["labels", "remove"]).required(true).multiple(true))]
    #[command(after_help = "Example:\n  mountctl node label alpha zone=east rack=3 --remove disk")]
    Label {
        /// Which node
        node: NodeName,
        /// Labels to set
        #[arg(value_name = "KEY=VALUE")]
        labels: Vec<Label>,
        /// Labels to remove
        #[arg(long, value_name = "KEY")]
        remove: Vec<LabelKey>,
    },
    /// Move every replica off a node, and wait until that is done
    Drain {
        /// Which node
        node: NodeName,
        /// End a drain instead; what has moved stays where it is
        #[arg(long, conflicts_with = "no_wait")]
        undo: bool,
        /// Don't wait
        #[arg(long)]
        no_wait: bool,
    },
    /// Remove a node from the cluster; drain it first
    Rm {
        /// Which node
        node: NodeName,
        /// Even if it holds replicas, which are lost
        #[arg(long)]
        force: bool,
    },
}
