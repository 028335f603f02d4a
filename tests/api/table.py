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
