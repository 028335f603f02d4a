"""What dflow says of its flows and tasks, statement by statement, and the test that shows each.

It reads like the description of the API that users get. Each test runs over the runners for which the
statement makes sense; ``test_table.py`` sees to it that all of them are there.
"""

from __future__ import annotations

Rows = tuple[tuple[str, str], ...]
"""(a statement, the test that shows it: ``file::function``)."""

TABLE: dict[str, Rows] = {
    "Names": (
        (
            "The names that scripts import are in dflow, dflow.states and task_runners.",
            "test_flow_forms.py::test_the_names_are_there",
        ),
    ),
    "@flow": (
        (
            "Functions, methods, lambdas, partials and objects can be flows, bare or with options.",
            "test_flow_forms.py::test_functions_of_every_form_make_flows",
        ),
        (
            "So can async functions and methods: a call is awaited.",
            "test_flow_forms.py::test_async_flows_are_awaited",
        ),
        (
            "A flow is named after its function, with dashes for underscores; `fn` is the plain function.",
            "test_flow_forms.py::test_a_flow_is_named_after_its_function",
        ),
        (
            "`with_options` keeps what it does not name, and None clears an option.",
            "test_flow_forms.py::test_with_options_keeps_and_clears",
        ),
        (
            "`return_state` and `wait_for` cannot be parameters of a flow.",
            "test_flow_forms.py::test_reserved_parameters_are_refused",
        ),
        (
            "A call takes `return_state` and `wait_for`.",
            "test_flow_forms.py::test_calls_take_return_state_and_wait_for",
        ),
        (
            "`flow_run_name` is a template over the parameters with their defaults, or a function.",
            "test_flow_forms.py::test_runs_are_named_by_a_rule",
        ),
        (
            "A name made of parameters has the values of the futures among them.",
            "test_flow_forms.py::test_names_are_made_of_values",
        ),
        (
            "A template that takes what is no parameter is refused at the definition.",
            "test_flow_forms.py::test_a_name_that_takes_what_is_not_there_is_refused",
        ),
        (
            "Parameters are converted as their annotations say, unless `validate_parameters` is off.",
            "test_flow_forms.py::test_parameters_are_validated",
        ),
        (
            "A parameter that does not fit makes a FAILED run that names the field and is not tried again.",
            "test_flow_forms.py::test_a_parameter_that_does_not_fit_is_a_failed_run",
        ),
        (
            "Futures among the arguments of a flow become their values, and a failed one makes it fail.",
            "test_flow_forms.py::test_futures_among_arguments_become_values",
        ),
        (
            "`task_runner` is an instance, a class or a name.",
            "test_flow_forms.py::test_a_runner_is_an_instance_a_class_or_a_name",
        ),
        (
            "A subflow uses the runner of its parent unless it names one.",
            "test_flow_forms.py::test_a_subflow_uses_the_runner_around_it",
        ),
        (
            "`log_prints` makes prints log lines, also those of subflows and tasks that leave it open.",
            "test_flow_forms.py::test_log_prints_goes_down",
        ),
        (
            "The log level holds in flows, subflows and tasks alike.",
            "test_logs.py::test_the_level_holds_everywhere",
        ),
        (
            "With `retries` the function runs again; completed task runs are returned, attempts are kept.",
            "test_flow_times.py::test_a_flow_runs_again",
        ),
        (
            "`retry_delay_seconds` is waited between, and the last of a list repeats.",
            "test_flow_times.py::test_delays_of_a_flow_are_waited",
        ),
        (
            "Beyond `timeout_seconds` a flow is TimedOut within a second; its late calls raise.",
            "test_flow_times.py::test_a_flow_that_takes_too_long_times_out",
        ),
        (
            "An async flow is cancelled at what it awaits when its time is over.",
            "test_flow_times.py::test_a_coroutine_that_takes_too_long_times_out",
        ),
        (
            "The timeout of a subflow is a failure, which its retries follow and its parent can catch.",
            "test_flow_times.py::test_a_subflow_that_takes_too_long_is_caught",
        ),
        (
            "A timeout that is not reached changes nothing in the body.",
            "test_flow_times.py::test_a_timeout_that_is_not_reached_changes_nothing",
        ),
        (
            "A body that runs in a thread because of its timeout sees the caller's context variables.",
            "test_async_flows.py::test_a_timed_body_sees_the_contextvars",
        ),
        (
            "Values flow along submits, maps and chains as in plain Python.",
            "test_flows_and_tasks.py::test_values_flow_along_the_graph",
        ),
        (
            "Hooks run in the driver, before the call of the flow returns.",
            "test_hooks.py::test_hooks_run_in_the_driver",
        ),
        (
            "Tasks work outside of flows too: they belong to one session, which shutdown ends.",
            "test_flows_and_tasks.py::test_work_outside_of_a_flow",
        ),
        (
            "Prints and lines of a flow's tasks reach the journal with their task run, attempt and worker.",
            "test_flows_and_tasks.py::test_prints_and_logs_reach_the_journal",
        ),
    ),
    "Subflows": (
        (
            "A flow called in a flow is a child run in the same journal, at any depth.",
            "test_subflows.py::test_subflows_are_children_in_the_record",
        ),
        (
            "Subflows share the journal and the runner, and their failures can be caught.",
            "test_flows_and_tasks.py::test_subflows_share_the_journal_and_the_runner",
        ),
        (
            "Subflows run at once by asyncio.gather, in bound threads, and started.",
            "test_subflows.py::test_subflows_run_at_once",
        ),
        (
            "One failure among gathered subflows harms no other.",
            "test_subflows.py::test_one_failure_among_gathered_subflows_is_caught",
        ),
        (
            "A subflow that fails raises its exception in its parent, which fails unless it catches it.",
            "test_subflows.py::test_a_subflow_that_fails_fails_its_parent",
        ),
        (
            "A flow called in a task, on a worker too, is a child of the task run.",
            "test_subflows.py::test_flows_in_tasks_are_recorded",
        ),
        (
            "A failure of a flow in a task goes up through task and flow, and can be caught on the way.",
            "test_subflows.py::test_failures_of_flows_in_tasks_propagate",
        ),
        (
            "Flows in tasks in flows in tasks need no more slots than there are.",
            "test_subflows.py::test_flows_in_tasks_in_flows_in_tasks",
        ),
        (
            "In a task of another process a flow with a runner of its own is refused, with what to do.",
            "test_subflows.py::test_a_flow_in_a_task_with_a_runner_of_its_own",
        ),
    ),
    "Async flows": (
        (
            "Async flows await tasks and futures, alone, gathered and as they end, and may call `.result()`.",
            "test_async_flows.py::test_async_flows_await_tasks_and_futures",
        ),
        (
            "While an async flow waits, the loop goes on.",
            "test_async_flows.py::test_the_loop_goes_on_while_a_flow_waits",
        ),
        (
            "Sync flows run under a running loop, as in Jupyter.",
            "test_async_flows.py::test_sync_flows_run_under_a_running_loop",
        ),
        (
            "In a sync flow the call of an async one gives a coroutine for asyncio.run.",
            "test_async_flows.py::test_async_flows_in_sync_flows",
        ),
        (
            "Sync flows can be called in async ones, also in a thread of asyncio's.",
            "test_async_flows.py::test_sync_flows_in_async_flows",
        ),
        (
            "Flow bodies see the context variables of their caller, and do not leak theirs into one another.",
            "test_async_flows.py::test_users_contextvars_are_seen_and_do_not_leak",
        ),
        (
            "Every coroutine and thread of a flow knows its own run.",
            "test_async_flows.py::test_every_coroutine_and_thread_knows_its_own_run",
        ),
        (
            "After a flow, finished or half done, its caller is in no run.",
            "test_async_flows.py::test_nothing_of_ours_is_left",
        ),
        (
            "Generator flows yield when they are called, and give a list when they are started.",
            "test_subflows.py::test_generator_flows_yield_when_called",
        ),
        (
            "Async generator flows yield when they are called, also several at once.",
            "test_subflows.py::test_async_generator_flows_yield_when_called",
        ),
        (
            "A generator flow that is closed early, or left open at its parent's end, has completed.",
            "test_subflows.py::test_generators_that_are_left_or_fail",
        ),
        (
            "Futures among the items of a generator flow decide its state.",
            "test_subflows.py::test_futures_among_the_items_decide",
        ),
        (
            "The cancellation of a coroutine, by asyncio, cancels its flow run and goes on to the caller.",
            "test_async_flows.py::test_a_cancelled_coroutine_is_a_cancelled_flow",
        ),
        (
            "Ctrl-C leaves a sync or async flow Interrupted, to be resumed.",
            "test_async_flows.py::test_ctrl_c_interrupts",
        ),
    ),
    "Starting flows": (
        (
            "`start` returns at once with a handle that has id, name, state, wait and result.",
            "test_flow_times.py::test_a_started_flow_runs_beside",
        ),
        (
            "The handle of a flow that failed raises its exception, or returns it.",
            "test_flow_times.py::test_a_started_flow_that_fails_says_so",
        ),
        (
            "Several flows, and the same one several times, run at once on one cluster.",
            "test_flow_times.py::test_several_flows_run_at_once",
        ),
        (
            "Flows that are started in flows and tasks are children there, and are joined at the end.",
            "test_flow_times.py::test_flows_started_in_flows_and_tasks_are_joined",
        ),
        (
            "A plain body that is cancelled ends at its next call.",
            "test_flow_times.py::test_a_plain_body_is_cancelled_at_its_next_call",
        ),
        (
            "A coroutine that is cancelled ends at what it awaits.",
            "test_flow_times.py::test_a_coroutine_is_cancelled_at_what_it_awaits",
        ),
        (
            "A flow that is cancelled while it awaits a retry is not tried again.",
            "test_flow_times.py::test_a_flow_that_awaits_a_retry_is_cancelled",
        ),
        (
            "A flow that is cancelled before it begins never runs.",
            "test_flow_times.py::test_a_flow_is_cancelled_before_it_begins",
        ),
        (
            "Flows that were started in tasks, on workers too, can be cancelled there.",
            "test_flow_times.py::test_flows_started_in_tasks_are_cancelled",
        ),
        (
            "A body that fails cancels the flows that it has started.",
            "test_flow_times.py::test_a_body_that_fails_cancels_what_it_has_started",
        ),
    ),
    "The final state": (
        (
            "Values, completed futures and completed states, in any container, are a flow's value.",
            "test_flow_ends.py::test_what_is_returned_completes",
        ),
        (
            "A failure anywhere in what is returned is the flow's, and the call raises the first.",
            "test_flow_ends.py::test_what_is_returned_fails",
        ),
        (
            "Returned futures decide the state and give their values.",
            "test_flows_and_tasks.py::test_returned_futures_decide_the_state_and_give_their_values",
        ),
        (
            "CANCELLED wins over FAILED among what is returned.",
            "test_flow_ends.py::test_a_cancelled_task_run_among_the_returned_cancels",
        ),
        (
            "What a subflow returns fails it where it is called.",
            "test_flow_ends.py::test_a_returned_failure_travels_to_the_parent",
        ),
        (
            "An exception makes the run FAILED, CRASHED or CANCELLED by its kind, and comes out of the call.",
            "test_flow_ends.py::test_what_is_raised_decides_the_state",
        ),
        (
            "When the body raises, what has not started is cancelled.",
            "test_flows_and_tasks.py::test_a_failing_flow_cancels_what_has_not_started",
        ),
        (
            "Ten thousand submitted task runs end within seconds when the body raises.",
            "test_flow_ends.py::test_a_body_that_raises_leaves_ten_thousand_behind",
        ),
        (
            "Submitted work that nobody awaits is waited for at the end.",
            "test_flow_ends.py::test_what_nobody_awaits_is_waited_for",
        ),
        (
            "Failures that nobody asks for are logged.",
            "test_flow_ends.py::test_failures_that_nobody_asks_for_are_logged",
        ),
    ),
}
"""The sections of the description, each with its statements."""

TABLE |= {
    "Caching": (
        (
            "A cached task runs once for equal arguments, called, submitted or mapped, in this run and later.",
            "test_caching.py::test_equal_calls_run_once",
        ),
        (
            "A chain of cached tasks is found without a worker: values count by where they come from.",
            "test_caching.py::test_a_chain_hits_without_a_worker",
        ),
        (
            "A value that is kept nowhere is hashed where it is, and known again in the next run.",
            "test_caching.py::test_a_value_that_is_kept_nowhere_is_hashed_where_it_is",
        ),
        (
            "What is not cached gets the values of hits, small and large.",
            "test_caching.py::test_what_follows_a_hit_gets_its_value",
        ),
        (
            "Tasks that tasks ask for are cached too.",
            "test_caching.py::test_nested_calls_are_cached",
        ),
        (
            "So are coroutines and generators.",
            "test_caching.py::test_functions_of_all_kinds_are_cached",
        ),
        (
            "Hits come out of `as_completed` like anything that has completed.",
            "test_caching.py::test_hits_come_in_order_of_completion",
        ),
        (
            "What cannot be hashed is said once, with the argument's name, and the task runs.",
            "test_caching.py::test_what_cannot_be_hashed_runs_with_a_warning",
        ),
        (
            "Subclasses of `CachePolicy` and `cache_key_fn` get the values of futures.",
            "test_caching.py::test_a_policy_of_the_users_own",
        ),
        (
            "Keys and values are kept in `result_storage`, keys elsewhere with `key_storage`.",
            "test_caching.py::test_results_of_a_cached_task_are_where_they_are_asked_to_be",
        ),
        (
            "Another process with another hash seed finds what was cached.",
            "test_caching.py::test_another_process_with_another_hash_seed_hits",
        ),
        (
            "Two drivers that ask for the same at once compute each key once.",
            "test_caching.py::test_two_processes_compute_each_key_once",
        ),
        (
            "When one of them is killed, the other takes over its keys at once.",
            "test_caching.py::test_when_one_of_two_is_killed_the_other_takes_over",
        ),
        (
            "A map of values that are all there takes a moment.",
            "test_caching.py::test_many_hits_take_a_moment",
        ),
    ),
    "@task": (
        (
            "Plain, coroutine, generator and async generator functions can be tasks.",
            "test_tasks.py::test_functions_of_every_kind_are_tasks",
        ),
        (
            "Methods, class methods and static methods can be tasks, bound to what they are looked up on.",
            "test_tasks.py::test_methods_are_tasks",
        ),
        (
            "Lambdas, partials and callable objects can be tasks, and have readable names.",
            "test_tasks.py::test_lambdas_partials_and_objects_are_tasks",
        ),
        (
            "What cannot be a task is refused at its definition, with the reason.",
            "test_tasks.py::test_what_cannot_be_a_task_is_refused",
        ),
        (
            "A task has the name, doc and signature of its function, which is its `fn`.",
            "test_tasks.py::test_a_task_looks_like_its_function",
        ),
        (
            "`@task` stands bare or takes options; one that does not exist is an error.",
            "test_tasks.py::test_the_decorator_takes_its_options",
        ),
        (
            "`with_options` changes what is named, keeps the rest, and clears with None.",
            "test_tasks.py::test_with_options_keeps_and_clears",
        ),
        (
            "`task_run_name` is a template or a callable, over values of futures too.",
            "test_tasks.py::test_task_runs_are_named_by_rules",
        ),
        (
            "A name that needs the value of a future is made when the body begins.",
            "test_tasks.py::test_a_name_that_waits_for_a_value_is_made_when_the_body_begins",
        ),
        (
            "Tags are those of the task and those around the call, on workers too.",
            "test_tasks.py::test_tags_around_calls",
        ),
    ),
    "Calls, submits and maps": (
        (
            "A call runs in the caller's thread, is recorded, and gives the value or the very exception.",
            "test_tasks.py::test_a_direct_call_runs_here_and_is_recorded",
        ),
        (
            "Tasks can be called, submitted and mapped outside of flows, in one session run.",
            "test_tasks.py::test_tasks_outside_of_a_flow",
        ),
        (
            "What is outside of flows ends with `shutdown`, as Completed.",
            "test_flows_and_tasks.py::test_work_outside_of_a_flow",
        ),
        (
            "`return_state=True` gives the final state instead, in calls, submits and maps.",
            "test_tasks.py::test_return_state_everywhere",
        ),
        (
            "`wait_for` puts calls, submits and maps after others, whose failure keeps them from running.",
            "test_tasks.py::test_wait_for_everywhere",
        ),
        (
            "What is only waited for is not passed on.",
            "test_flows_and_tasks.py::test_wait_for_orders_without_passing_a_value",
        ),
        (
            "Arguments that do not fit are refused at the call, and nothing is recorded.",
            "test_tasks.py::test_arguments_that_do_not_fit_are_refused",
        ),
        (
            "What cannot travel is named when it is submitted: parameter, path and type.",
            "test_tasks.py::test_what_cannot_travel_is_named_at_submit",
        ),
        (
            "A lock inside of an argument fails the submit, and so the flow.",
            "test_flows_and_tasks.py::test_an_argument_that_cannot_travel_is_named",
        ),
        (
            "A result that cannot travel fails once, and names its type.",
            "test_flows_and_tasks.py::test_a_result_that_cannot_travel_fails_once",
        ),
        (
            "Submits, maps and futures as arguments give the values of plain Python.",
            "test_flows_and_tasks.py::test_values_flow_along_the_graph",
        ),
        (
            "Futures are found in dataclasses, dicts and lists, at any depth.",
            "test_flows_and_tasks.py::test_futures_are_found_inside_containers",
        ),
        (
            "Futures are found in sets, tuples, models and keys, and the user's containers stay as they are.",
            "test_arguments_and_maps.py::test_futures_are_found_in_every_container",
        ),
        (
            "`quote` hides a value from that search, `opaque` is resolved and not looked into.",
            "test_arguments_and_maps.py::test_states_and_annotations",
        ),
        (
            "A quoted future cannot go to another process, and the error says where it is.",
            "test_arguments_and_maps.py::test_a_quoted_future_cannot_go_to_another_process",
        ),
        (
            "`allow_failure` gives the exception of a failed task run as the value.",
            "test_arguments_and_maps.py::test_a_failure_may_be_given_to_a_task",
        ),
        (
            "Tasks may give failures to the tasks that they submit.",
            "test_arguments_and_maps.py::test_failures_are_given_to_nested_task_runs",
        ),
        (
            "`allow_failure` is for crashes too.",
            "test_arguments_and_maps.py::test_a_task_whose_worker_died_may_fail",
        ),
        (
            "`allow_failure` gives values that are large.",
            "test_arguments_and_maps.py::test_large_values_go_to_those_that_allow_failure",
        ),
        (
            "A value that is too large for the journal goes from task to task, and can be fetched.",
            "test_flows_and_tasks.py::test_large_values_go_from_task_to_task",
        ),
        ("A map goes over every iterable argument.", "test_maps.py::test_every_iterable_is_mapped"),
        (
            "Strings, bytes, dicts, models and what is `unmapped` are the same for each item.",
            "test_maps.py::test_some_iterables_are_values",
        ),
        ("The lengths of what is mapped must agree.", "test_maps.py::test_lengths_must_agree"),
        (
            "A map gives a list of futures with `wait`, `result` and `states`.",
            "test_maps.py::test_a_map_gives_a_list_of_futures",
        ),
        (
            "A map returns before its task runs have ended.",
            "test_maps.py::test_a_map_does_not_block",
        ),
        (
            "A map is one message, however many items it has.",
            "test_maps.py::test_a_map_is_one_message",
        ),
        ("What is `unmapped` travels once.", "test_maps.py::test_what_is_unmapped_travels_once"),
        (
            "A map over the future of a list is made when the list is there.",
            "test_arguments_and_maps.py::test_maps_over_lists_that_are_still_to_come",
        ),
        (
            "A map over a list that fails raises when its values are asked for.",
            "test_arguments_and_maps.py::test_maps_over_a_list_that_fails",
        ),
        (
            "`max_in_flight` bounds how many task runs of a map are under way.",
            "test_arguments_and_maps.py::test_no_more_than_the_limit_run_at_once",
        ),
        (
            "A failed upstream makes UpstreamFailed, which is final and never retried.",
            "test_futures.py::test_upstream_failures_are_final",
        ),
        (
            "The message of UpstreamFailed names the chain to its root.",
            "test_flows_and_tasks.py::test_a_chain_of_upstream_failures_names_its_root",
        ),
        (
            "Async tasks are awaited in async code, together with futures.",
            "test_async_and_generators.py::test_async_tasks_in_async_code",
        ),
        (
            "An async task called in a sync flow gives a coroutine; submitted, a future.",
            "test_async_and_generators.py::test_async_tasks_in_a_sync_flow",
        ),
        (
            "Sync flows call, submit and wait under a running loop.",
            "test_async_and_generators.py::test_sync_tasks_and_waits_under_a_running_loop",
        ),
        (
            "An awaited call that is cancelled ends Cancelled, and its body at its await.",
            "test_async_and_generators.py::test_a_direct_call_that_is_cancelled",
        ),
        (
            "Generators that are called give their items as they come.",
            "test_async_and_generators.py::test_called_generators_give_items_as_they_come",
        ),
        (
            "Generators that are submitted give lists.",
            "test_async_and_generators.py::test_submitted_generators_give_lists",
        ),
        (
            "Async generators are iterated over with `async for`.",
            "test_async_and_generators.py::test_async_generators_are_iterated_asynchronously",
        ),
        (
            "A generator that its caller closes or forgets has completed, and says after how many items.",
            "test_async_and_generators.py::test_a_generator_that_is_closed_early_has_completed",
        ),
        (
            "`send` and `throw` reach a generator that was called.",
            "test_async_and_generators.py::test_a_generator_takes_what_is_sent",
        ),
        (
            "A generator runs in the thread of its caller, and in its own run.",
            "test_async_and_generators.py::test_generators_run_in_the_thread_that_iterates",
        ),
    ),
    "Futures": (
        (
            "A future tells the id, name, state and value of its task run.",
            "test_futures.py::test_a_future_tells_of_its_run",
        ),
        (
            "A wait that takes too long returns, or raises WaitTimeout, and the task run goes on.",
            "test_futures.py::test_a_wait_that_takes_too_long",
        ),
        (
            "WaitTimeout, TimedOutError and a task's own TimeoutError are told apart.",
            "test_futures.py::test_timeouts_are_told_apart",
        ),
        (
            "`wait` never raises; `result` raises, or returns the exception if asked to.",
            "test_futures.py::test_waiting_never_raises_and_results_do",
        ),
        (
            "The exception that is caught is the one that was raised, with its attributes.",
            "test_futures.py::test_the_exception_is_the_one_that_was_raised",
        ),
        (
            "The traceback of the worker is the cause of the exception.",
            "test_futures.py::test_the_traceback_of_the_worker_is_the_cause",
        ),
        (
            "An exception that cannot be rebuilt is a TaskFailedError with its type, text and traceback.",
            "test_futures.py::test_an_exception_that_cannot_be_rebuilt",
        ),
        (
            "`add_done_callback` calls a function once the task run has ended, also afterwards.",
            "test_futures.py::test_callbacks_are_called_once",
        ),
        (
            "`wait` gives those done and those not done.",
            "test_flows_and_tasks.py::test_wait_and_as_completed",
        ),
        (
            "`as_completed` gives futures in the order in which they end.",
            "test_futures.py::test_futures_come_in_order_of_completion",
        ),
        (
            "`as_completed` works with `async for`.",
            "test_async_and_generators.py::test_async_for_over_as_completed",
        ),
        (
            "No value is pulled to the driver to learn a state.",
            "test_futures.py::test_no_value_is_pulled_to_learn_a_state",
        ),
        (
            "`cancel` ends what waits at once, and what depends on it never runs.",
            "test_futures.py::test_what_waits_is_cancelled_at_once",
        ),
        (
            "`cancel` asks a body that runs to end, and does not wait for it longer than the grace.",
            "test_futures.py::test_what_runs_is_cancelled_after_the_grace",
        ),
        (
            "`cancel` changes nothing in what has ended.",
            "test_futures.py::test_cancelling_what_has_ended_changes_nothing",
        ),
    ),
    "States": (
        (
            "Every state can be made by hand, and has the type of its name.",
            "test_states.py::test_every_state_can_be_made_by_hand",
        ),
        (
            "A state made by hand gives its data, or raises its exception.",
            "test_states.py::test_results_of_states_made_by_hand",
        ),
        (
            "The state of a task run has type, name, message, time and result.",
            "test_states.py::test_states_of_task_runs",
        ),
        (
            "A state that outlives its flow gives a small value, from the record.",
            "test_states.py::test_a_state_that_outlives_its_flow",
        ),
        (
            "There are nine types of state.",
            "test_states.py::test_the_names_are_those_of_the_package",
        ),
        (
            "A task may return a Completed, whose data is its value.",
            "test_states.py::test_a_task_may_return_a_completed_state",
        ),
        (
            "A task may return Failed, Crashed or Cancelled, and ends so without a retry.",
            "test_states.py::test_a_task_may_return_another_final_state",
        ),
        (
            "An exception in a returned state is the one that is raised.",
            "test_states.py::test_an_exception_as_data_is_what_is_raised",
        ),
        (
            "A returned state that is not final is an error.",
            "test_states.py::test_a_state_that_is_not_final_is_an_error",
        ),
        (
            "`sys.exit` in a body is a failure, and its worker lives on.",
            "test_flows_and_tasks.py::test_sys_exit_in_a_body_is_a_failure_and_the_worker_lives",
        ),
    ),
    "Retries and timeouts": (
        (
            "`retries=N` gives N+1 attempts, each kept with its error and times.",
            "test_retries_and_timeouts.py::test_as_many_attempts_as_retries_and_one",
        ),
        (
            "Attempts on workers are kept with the worker.",
            "test_retries_and_timeouts.py::test_attempts_on_workers_name_them",
        ),
        (
            "What depends on a task run that is retried gets the value of its success.",
            "test_flows_and_tasks.py::test_a_retry_and_its_downstream_come_out_right",
        ),
        (
            "Awaited calls of async tasks are retried on their loop.",
            "test_async_and_generators.py::test_async_calls_are_retried",
        ),
        (
            "A generator that raises is retried from its beginning.",
            "test_async_and_generators.py::test_a_called_generator_that_raises_is_retried",
        ),
        (
            "Delays are a number, a list whose last value repeats, or a callable of the retries.",
            "test_retries_and_timeouts.py::test_delays_before_retries",
        ),
        (
            "`exponential_backoff` doubles up to a limit.",
            "test_retries_and_timeouts.py::test_backoff_is_clamped",
        ),
        (
            "`retry_jitter_factor` spreads delays by its share.",
            "test_retries_and_timeouts.py::test_jitter_changes_delays",
        ),
        (
            "A retry with a delay is AwaitingRetry until its time.",
            "test_retries_and_timeouts.py::test_the_state_between_attempts",
        ),
        (
            "A retry that waits holds no slot.",
            "test_flows_and_tasks.py::test_a_retry_waits_its_delay_and_holds_no_worker",
        ),
        (
            "A retry without a delay is Retrying.",
            "test_retries_and_timeouts.py::test_without_a_delay_the_state_is_retrying",
        ),
        (
            "`retry_condition_fn` is any callable, async too, and decides about each retry.",
            "test_retries_and_timeouts.py::test_a_condition_decides_about_retries",
        ),
        (
            "Retry conditions are asked in the driver.",
            "test_hooks.py::test_conditions_are_asked_in_the_driver",
        ),
        (
            "Retry conditions decide about tasks that are called in tasks.",
            "test_hooks.py::test_conditions_decide_about_tasks_called_in_tasks",
        ),
        (
            "What takes too long is TimedOut within a second, whatever it does, and disturbs nobody.",
            "test_retries_and_timeouts.py::test_a_body_that_takes_too_long",
        ),
        (
            "What is left behind after its time holds no slot.",
            "test_retries_and_timeouts.py::test_the_only_slot_is_free_again",
        ),
        (
            "A direct call that takes too long raises a TimedOutError.",
            "test_retries_and_timeouts.py::test_a_direct_call_that_takes_too_long",
        ),
        (
            "An awaited call that takes too long is cancelled.",
            "test_retries_and_timeouts.py::test_an_awaited_call_that_takes_too_long",
        ),
        (
            "Timeouts are per attempt, count as failures, and are retried.",
            "test_retries_and_timeouts.py::test_timeouts_are_failures_and_are_retried",
        ),
        (
            "What ends in time is as without a limit.",
            "test_retries_and_timeouts.py::test_what_ends_in_time_is_as_without_a_limit",
        ),
    ),
    "The current run": (
        (
            "`current_run` tells ids, names, parameters, tags and counts, wherever the body runs.",
            "test_current_run.py::test_every_attribute_everywhere",
        ),
        ("`current_run().worker` names the worker.", "test_current_run.py::test_workers_are_named"),
        (
            "Outside of runs `current_run` raises, and `runtime` gives nothings.",
            "test_current_run.py::test_nothing_outside_of_runs",
        ),
        (
            "`runtime.task_run` gives nothings in a flow.",
            "test_current_run.py::test_a_flow_is_no_task_run",
        ),
        (
            "`checkpoint_dir` and `idempotency_key` are the same in each attempt of a task run.",
            "test_current_run.py::test_the_next_attempt_finds_what_was_left",
        ),
        (
            "`checkpoint_dir` and `idempotency_key` are the same after a resume.",
            "test_current_run.py::test_a_resume_finds_what_was_left",
        ),
        (
            "`bind` gives threads of the user's own to the run.",
            "test_current_run.py::test_bound_functions_belong_to_their_run",
        ),
        (
            "A bound function keeps its name and its doc.",
            "test_current_run.py::test_bound_generators_and_names",
        ),
        (
            "Threads that do not know their run are told to use `bind`.",
            "test_current_run.py::test_threads_without_a_run_are_told_to_bind",
        ),
    ),
    "Nested work": (
        (
            "Tasks call, submit and map other tasks, and take what ends first.",
            "test_nested_work.py::test_tasks_call_submit_and_map_others",
        ),
        (
            "Nested task runs are recorded below their parents.",
            "test_flows_and_tasks.py::test_nested_work_is_recorded_and_does_not_deadlock",
        ),
        (
            "Tasks may call, map, and rescue others that fail.",
            "test_flows_and_tasks.py::test_tasks_may_call_map_and_rescue_others",
        ),
        (
            "Calls and submits in turn go deeper than there are slots.",
            "test_nested_work.py::test_calls_and_submits_in_turn",
        ),
        ("Fifty levels complete on one slot.", "test_slots.py::test_fifty_levels"),
        (
            "All kinds of nested work complete on one slot.",
            "test_nested_work.py::test_everything_nested_on_the_only_slot",
        ),
        (
            "Bodies with a time limit, bound threads and coroutines wait without holding the slot.",
            "test_slots.py::test_timed_and_async_bodies_wait",
        ),
        (
            "Threads of a body wait without holding the slot.",
            "test_slots.py::test_threads_of_a_body_wait",
        ),
        (
            "Failures of nested work are raised where they are asked for.",
            "test_nested_work.py::test_failures_of_nested_work",
        ),
        (
            "Work that a task submitted and did not wait for is done.",
            "test_nested_work.py::test_what_a_task_leaves_open_is_done",
        ),
        (
            "Maps in tasks over lists that are still to come are made before the task ends.",
            "test_arguments_and_maps.py::test_nested_maps_over_lists_that_are_still_to_come",
        ),
        (
            "Flows can be called in tasks, and are child runs.",
            "test_nested_work.py::test_flows_are_called_in_tasks",
        ),
        (
            "Async tasks submit, await and gather on workers.",
            "test_nested_work.py::test_async_tasks_ask_for_work",
        ),
    ),
    "Hooks": (
        (
            "Hooks of tasks are called in the driver, before the flow call returns.",
            "test_hooks.py::test_hooks_run_in_the_driver",
        ),
        (
            "Hooks of tasks called in tasks are called in the driver too.",
            "test_hooks.py::test_hooks_of_tasks_called_in_tasks_run_in_the_driver",
        ),
        (
            "Hooks of tasks that were made in a function are those of this program.",
            "test_hooks.py::test_local_tasks_tell_the_hooks_of_this_program",
        ),
        (
            "A hook gets the value, however large, though nobody else keeps it.",
            "test_hooks.py::test_a_hook_gets_a_large_value_whose_future_is_gone",
        ),
    ),
    "Logs": (
        (
            "`get_run_logger` and `log_prints` record lines with task run and attempt.",
            "test_flows_and_tasks.py::test_prints_and_logs_reach_the_journal",
        ),
        (
            "Nothing that is logged is lost, however odd.",
            "test_logs.py::test_nothing_that_is_logged_is_lost",
        ),
        (
            "Lines of prints belong to the task run that printed them, in threads and coroutines.",
            "test_logs.py::test_two_bodies_that_print_at_once_keep_their_lines",
        ),
        (
            "Prints that are not log lines appear at the driver, once and in order.",
            "test_logs.py::test_prints_appear_at_the_driver",
        ),
        (
            "Lines that two workers print at once are not mixed.",
            "test_logs.py::test_prints_of_workers_come_in_whole_lines",
        ),
        (
            "Workers that share the driver's terminal show nothing twice.",
            "test_logs.py::test_a_script_shows_each_print_once",
        ),
        (
            "What a body printed and logged before it raised is there when the flow has failed.",
            "test_logs.py::test_the_last_words_of_a_failure_arrive",
        ),
        (
            "Endless prints are bounded, and it is said how many were dropped.",
            "test_logs.py::test_endless_prints_are_bounded",
        ),
        (
            "A driver without an output goes on.",
            "test_logs.py::test_a_driver_without_an_output_goes_on",
        ),
        (
            "The level is that of the settings, on workers too.",
            "test_logs.py::test_the_level_holds_everywhere",
        ),
        (
            "Extra loggers speak to the run in which they speak.",
            "test_logs.py::test_extra_loggers_speak_to_their_run",
        ),
        ("Extra loggers are named in the settings.", "test_logs.py::test_extra_loggers_are_set"),
        (
            "Extra loggers that cannot be read are an error that names the variable.",
            "test_logs.py::test_extra_loggers_that_cannot_be_read",
        ),
        (
            "A program with its own logging sees each line once.",
            "test_logs.py::test_a_program_with_logging_sees_each_line_once",
        ),
        (
            "Lines of workers come to the driver's log with task run, attempt and worker.",
            "test_logs.py::test_what_runs_elsewhere_is_shown_here",
        ),
        (
            "A worker that was lost is announced in the driver's log.",
            "test_logs.py::test_a_lost_worker_is_announced",
        ),
    ),
    "On Dask": (
        (
            "Bodies run in worker processes, and attempts and lines name them.",
            "test_flows_and_tasks.py::test_bodies_run_in_worker_processes",
        ),
        (
            "The functions of a module share its globals on a worker.",
            "test_flows_and_tasks.py::test_two_tasks_of_one_module_share_its_globals",
        ),
        (
            "`resources` and `workers` say where bodies run.",
            "test_placement.py::test_bodies_run_where_they_must",
        ),
        (
            "A retry goes where the first attempt had to go.",
            "test_placement.py::test_a_retry_goes_there_too",
        ),
        ("`priority` says what goes first.", "test_placement.py::test_the_higher_goes_first"),
        (
            "What no worker can take is said once, and runs when such a worker comes.",
            "test_placement.py::test_what_nobody_can_take_is_said_once",
        ),
        (
            "A worker that comes back under its name is the same one.",
            "test_placement.py::test_a_worker_that_comes_back_is_the_same_one",
        ),
        (
            "Clusters that dflow starts have the resources that they are given.",
            "test_placement.py::test_clusters_of_our_own_have_resources",
        ),
        (
            "Other runners take no notice of resources, priorities, workers and batches.",
            "test_placement.py::test_other_runners_take_no_notice",
        ),
        (
            "A task that kills its workers ends Crashed after `max_worker_losses`, and others complete.",
            "test_worker_deaths.py::test_a_poison_task_ends_and_others_complete",
        ),
        (
            "What waits on a dead worker is sent out again as often as it was lost.",
            "test_worker_deaths.py::test_what_waits_on_a_dead_worker_is_not_sent_out_in_a_loop",
        ),
        (
            "Work that a script leaves open outside of flows is cancelled.",
            "test_worker_deaths.py::test_work_left_open_outside_of_a_flow_is_cancelled",
        ),
        (
            "Bodies with a time limit know their Dask worker.",
            "test_slots.py::test_timed_bodies_know_their_worker",
        ),
    ),
}

TABLE |= {
    "Bodies": (
        (
            "What an attempt took of processors and memory, and the size of its value, is recorded.",
            "test_bodies.py::test_what_an_attempt_took_is_recorded",
        ),
        (
            "The exception that a body raises is the one that the caller catches, a StopIteration too.",
            "test_bodies.py::test_a_stop_iteration_is_what_the_caller_catches",
        ),
        (
            "A task that returns futures gives their values.",
            "test_bodies.py::test_a_task_that_returns_futures_gives_their_values",
        ),
        (
            "A future that is kept gives a small value after its flow has ended.",
            "test_bodies.py::test_small_values_can_be_had_after_the_flow_has_ended",
        ),
        (
            "Context variables of a call are those of its body, in every thread of the process.",
            "test_bodies.py::test_context_variables_of_the_call_are_those_of_the_body",
        ),
        (
            "A list of futures can be awaited.",
            "test_bodies.py::test_a_list_of_futures_can_be_awaited",
        ),
        (
            "Hooks do not hold up the loop of an async flow.",
            "test_bodies.py::test_hooks_do_not_hold_up_the_loop_of_an_async_flow",
        ),
        (
            "A flow that holds up its event loop is TimedOut all the same.",
            "test_bodies.py::test_the_deadline_of_a_flow_is_kept_though_it_holds_up_its_loop",
        ),
        (
            "A coroutine that cannot be cancelled is left behind at its deadline.",
            "test_bodies.py::test_a_coroutine_that_cannot_be_cancelled_is_left_behind",
        ),
        (
            "Cancelling a run that has ended does nothing.",
            "test_bodies.py::test_an_ended_run_can_be_cancelled_without_harm",
        ),
        (
            "Cancelling a run ends a map whose bodies run in the caller's own thread.",
            "test_bodies.py::test_cancelling_ends_a_map_in_the_callers_own_thread",
        ),
    ),
}

TABLE |= {
    "Results": (
        (
            "Results that are asked for are kept: of submits, maps and calls, in flows and in tasks.",
            "test_results.py::test_results_are_kept_that_are_asked_for",
        ),
        (
            "So are those of async tasks, and what generators yield.",
            "test_results.py::test_results_of_every_kind_of_task_are_kept",
        ),
        (
            "Small results are in the record anyway.",
            "test_results.py::test_small_results_stay_in_the_record",
        ),
        (
            "`persist_result=False` keeps nothing, however long it took.",
            "test_results.py::test_nothing_is_kept_that_shall_not_be",
        ),
        (
            "Left open, results of long bodies are kept by themselves.",
            "test_results.py::test_long_results_are_kept_by_themselves",
        ),
        (
            "That is bounded by a quota per run, which is said once.",
            "test_results.py::test_a_quota_bounds_what_is_kept_by_itself",
        ),
        (
            "What a task leaves unset is its flow's, in subflows and on workers too.",
            "test_results.py::test_what_a_task_leaves_unset_is_its_flows",
        ),
        (
            "Who names a place, a file or a serializer wants the result to be kept.",
            "test_results.py::test_who_names_a_place_or_a_form_wants_it_kept",
        ),
        (
            "`result_storage_key` names a file that its user finds again, and that pickle can read.",
            "test_results.py::test_a_result_is_found_under_the_name_that_was_chosen",
        ),
        (
            "Each run writes that file anew.",
            "test_results.py::test_each_run_writes_its_file_anew",
        ),
        (
            "Serializers: pickle, JSON that others can read, either compressed.",
            "test_results.py::test_results_are_written_in_many_forms",
        ),
        (
            "A user's serializer that the module of the task registers is known on workers.",
            "test_results.py::test_users_serializers_write_results",
        ),
        (
            "`with_options` keeps and clears what is said of results.",
            "test_results.py::test_with_options_keeps_and_clears",
        ),
        (
            "Options of results that cannot be meant are refused at the definition.",
            "test_results.py::test_what_cannot_be_meant_is_refused_at_the_definition",
        ),
        (
            "Where a result was asked for, a failed write is a failed attempt, which may be retried.",
            "test_results.py::test_a_failed_write_is_a_failed_attempt",
        ),
        (
            "Storing a value does not count for the deadline of its body.",
            "test_results.py::test_storing_a_value_does_not_count_for_the_deadline",
        ),
        (
            "Elsewhere it is a warning.",
            "test_results.py::test_a_failed_write_that_nobody_asked_for_is_a_warning",
        ),
        (
            "A full disk leaves nothing half, and a retry goes on once there is room.",
            "test_results.py::test_a_full_disk_fails_the_attempt",
        ),
        (
            "What cannot be written is a SerializationError that names its type.",
            "test_results.py::test_what_cannot_be_written_says_so",
        ),
        (
            "What cannot be written and need not be is no failure.",
            "test_results.py::test_what_cannot_be_written_and_need_not_be_is_no_failure",
        ),
        (
            "A serializer or a store that is not there is found before the body runs.",
            "test_results.py::test_where_nothing_can_be_kept_is_found_before_the_body",
        ),
        (
            "A serializer that was asked for decides for small results too.",
            "test_results.py::test_a_serializer_decides_for_small_values_too",
        ),
        (
            "A name that leads out of the store fails before the body runs.",
            "test_results.py::test_a_name_that_leads_out_of_the_store_fails_before_the_body",
        ),
        (
            "A resume finds what is kept: by calls, futures and arguments.",
            "test_kept_values.py::test_a_resume_finds_what_is_kept",
        ),
        (
            "Consumers that come later read what is kept.",
            "test_kept_values.py::test_consumers_that_come_later_read_what_is_kept",
        ),
        (
            "Arrays that were read can be changed as before.",
            "test_kept_values.py::test_values_that_were_read_can_be_changed",
        ),
        (
            "Kept values can be had after their flow has ended.",
            "test_kept_values.py::test_values_can_be_had_after_the_flow",
        ),
        (
            "Workers write and read by themselves: no value goes through the driver.",
            "test_kept_values.py::test_workers_write_and_read_by_themselves",
        ),
        (
            "Subflows whose values are kept are not called again.",
            "test_kept_values.py::test_subflows_whose_values_are_kept_are_not_called_again",
        ),
        (
            "A flow whose value cannot be written fails, where it was asked for.",
            "test_kept_values.py::test_a_flow_whose_value_cannot_be_written_fails",
        ),
        (
            "Any URL of fsspec is a store, such as one of S3.",
            "test_kept_values.py::test_results_are_kept_by_s3",
        ),
        (
            "What is kept does not run again when its worker dies.",
            "test_kept_values.py::test_what_is_kept_does_not_run_again_when_its_worker_dies",
        ),
        (
            "A file that is gone or not whole is computed again by a resume.",
            "test_kept_values.py::test_a_file_that_is_not_whole_is_computed_again",
        ),
        (
            "A damaged file never gives a value; the next resume mends it.",
            "test_kept_values.py::test_a_damaged_file_never_gives_a_value",
        ),
        (
            "Consumers of a damaged file fail with an error that names it.",
            "test_kept_values.py::test_consumers_of_a_damaged_file_fail",
        ),
        (
            "With `allow_failure` they get that error as the value.",
            "test_kept_values.py::test_a_consumer_may_bear_a_damaged_file",
        ),
        (
            "Two runs under one name do not get each other's value.",
            "test_kept_values.py::test_two_runs_under_one_name_do_not_get_each_others_value",
        ),
        (
            "A store that workers do not share is refused at the submit.",
            "test_kept_values.py::test_a_store_that_workers_do_not_share_is_refused",
        ),
        (
            "Where nobody has asked, it keeps nothing, which is said once.",
            "test_kept_values.py::test_a_store_that_workers_do_not_share_keeps_nothing_by_itself",
        ),
        (
            "Nested work notices it on its worker.",
            "test_kept_values.py::test_nested_work_notices_it_in_its_worker",
        ),
        (
            "A store in memory serves bodies in this process.",
            "test_kept_values.py::test_a_store_in_memory_serves_bodies_in_this_process",
        ),
        (
            "Nothing is left in a store but results.",
            "test_kept_values.py::test_nothing_is_left_in_a_store_but_results",
        ),
    ),
    "Resume and rerun": (
        (
            "A FAILED run is mended and resumed: what has completed stays, but for what had taken the failure.",
            "test_resume_and_rerun.py::test_what_failed_is_mended_and_resumed",
        ),
        (
            "`rerun(run, from_task=...)` runs again what follows from a task; without it everything does.",
            "test_resume_and_rerun.py::test_a_rerun_from_a_task",
        ),
        (
            "What a task calls runs again with it, and to run again what was called, its caller does.",
            "test_resume_and_rerun.py::test_a_rerun_of_what_calls_others",
        ),
        (
            "A rerun with other parameters is a run of its own, linked to the old one.",
            "test_resume_and_rerun.py::test_a_rerun_with_other_parameters",
        ),
        (
            "Changed code counts for what has completed only with `rerun_changed`; without it there is a warning.",
            "test_resume_and_rerun.py::test_changed_code_counts_if_asked",
        ),
        (
            "Checkpoints are found by the resume of a run, and not by what runs again from scratch.",
            "test_resume_and_rerun.py::test_checkpoints_are_for_resumes_and_not_for_reruns",
        ),
    ),
}
