//! A Kafka to point servers at by hand: as the other scenarios have it with `--kafka`. It also goes when this process is
//! killed, in whatever way.

use std::time::Duration;

use tokio::time::sleep;

use crate::failure::Failure;
use crate::report::Report;
use crate::target::Target;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// It ends by itself after this; `--seconds-max` may be sooner.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=120))]
    minutes: u64,
}

pub(crate) async fn run(target: &Target, args: &Args) -> Result<Report, Failure> {
    let kafka =
        target.kafka.as_ref().ok_or_else(|| Failure::Usage("there is nothing to run: give --kafka".to_owned()))?;
    println!("kafka on {}", kafka.bootstrap);
    sleep(Duration::from_secs(args.minutes * 60)).await;
    Ok(Report::new("kafka"))
}
