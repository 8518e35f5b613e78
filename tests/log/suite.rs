//! One test per case and engine.

use std::time::Duration;

/// Longest that one case may take, also on a busy machine with a real broker. Past it the test fails.
pub(crate) const CASE_TIME_MAX: Duration = Duration::from_secs(120);

/// Makes the tests of one engine.
///
/// `every` takes attributes for all cases; the other lists take attributes for the cases of one ability, so that what an
/// engine cannot do stands in the test report as ignored, with the reason:
/// `several_partitions: [#[ignore = "a topic has one partition"]]`.
macro_rules! contract_suite {
    ($engine:ty, every: $every:tt, several_partitions: $several:tt, partitions_added: $added:tt, gaps: $gaps:tt $(,)?) => {
        contract_cases! { $engine, $every, [], [
            append::appended_records_are_read_back_as_they_were,
            append::one_record_too_large_fails_alone,
            append::an_empty_batch_has_no_answers,
            append::tombstones_and_bytes_that_are_not_utf8_survive,
            append::a_value_of_four_mebibytes_survives,
            append::many_appenders_lose_nothing_and_keep_their_order,
            append::a_closed_log_takes_nothing,
            read::a_block_stops_near_its_bytes_and_always_brings_a_record,
            read::reading_on_from_next_brings_each_record_once,
            read::a_read_stays_below_the_end_of_its_range,
            read::a_start_at_or_past_the_end_brings_nothing,
            read::a_topic_that_does_not_exist_is_no_error,
            read::before_is_the_newest_record_below,
            read::ends_are_those_of_the_topics_that_exist,
            time::a_time_is_the_first_record_at_or_after_it,
            time::a_time_past_the_last_record_is_the_end,
            time::out_of_order_times_resume_at_the_first_that_is_late_enough,
            time::many_places_are_answered_in_the_order_asked,
            retention::a_start_that_retention_passed_is_gone,
            retention::retention_between_two_blocks_is_told,
            retention::an_emptied_partition_keeps_its_offsets,
            retention::times_before_the_oldest_record_are_the_oldest_record_or_earlier,
            retention::a_tail_over_an_emptied_partition_goes_on,
            restart::a_restart_keeps_records_and_offsets,
            restart::an_emptied_partition_goes_on_counting_after_a_restart,
            tail::a_live_tail_brings_what_comes_and_nothing_older,
            tail::a_warm_tail_starts_so_many_records_back,
            tail::a_tail_says_once_it_has_caught_up,
            tail::a_tail_of_nothing_has_caught_up,
            tail::an_empty_topic_is_opened_at_its_end,
            tail::a_topic_that_appears_later_is_followed_from_its_first_record,
            tail::a_topic_followed_later_comes_from_its_first_record,
            tail::a_topic_followed_no_longer_is_silent,
            tail::a_cancelled_next_loses_nothing,
            tail::a_tail_under_many_appenders_brings_each_record_once,
        ] }
        contract_cases! { $engine, $every, $several, [
            partitions::one_key_stays_in_one_partition,
            partitions::every_partition_has_its_own_ends,
            partitions::a_tail_follows_every_partition,
        ] }
        contract_cases! { $engine, $every, $added, [
            partitions::a_partition_added_is_followed_from_its_first_record,
        ] }
        contract_cases! { $engine, $every, $gaps, [
            gaps::a_read_goes_over_a_gap,
            gaps::a_read_over_a_gap_at_the_end_ends,
            gaps::before_looks_over_a_gap,
            gaps::a_tail_goes_over_a_gap,
        ] }
    };
}

macro_rules! contract_cases {
    ($engine:ty, $every:tt, $ability:tt, [$($page:ident::$case:ident),* $(,)?]) => {
        $(contract_case! { $engine, $every, $ability, $page, $case })*
    };
}

macro_rules! contract_case {
    ($engine:ty, [$($every:tt)*], [$($ability:tt)*], $page:ident, $case:ident) => {
        $($every)*
        $($ability)*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let case = async { crate::cases::$page::$case(<$engine as crate::engine::Engine>::start().await).await };
            tokio::time::timeout(crate::suite::CASE_TIME_MAX, case).await.expect("the case ends in time");
        }
    };
}
