/*
 * Sitter: teaches a pretrained autoregressive text-to-image model one subject from a few pictures, and draws it.
 *
 *     open model  ->  train subject  ->  sample tokens  ->  decode image
 *
 * Made from src/capi by cbindgen; do not edit. What holds for every function:
 *
 * Stability  A program compiled with this header runs unchanged on every later library of the same major version. Call
 *            sitter_require_abi(SITTER_ABI_MAJOR, SITTER_ABI_MINOR, &err) first.
 * Errors     What can fail returns a sitter_status, 0 for success, and takes a sitter_error ** last, which may be NULL. On
 *            failure it receives an error to be freed with sitter_error_free, or NULL when even that cannot be made. Treat
 *            unknown values as failures. SITTER_E_NULL_POINTER, SITTER_E_INVALID_ARGUMENT, SITTER_E_WRONG_HANDLE,
 *            SITTER_E_FORKED, SITTER_E_INTERNAL and SITTER_E_PANIC can come from any function and are not repeated; a call
 *            that takes a run can also give SITTER_E_INVALID_STATE, SITTER_E_REENTRANT and SITTER_E_RESOURCE_EXHAUSTED.
 * Ownership  Everything is an opaque handle. Shared handles (engine, model, subject, tokens, image) never change, are counted,
 *            may be used from several threads at once, and keep alive what they need: free them in any order, from any
 *            thread. Builder handles (options, dataset, run, error) have one owner and belong to one thread at a time unless a
 *            function says otherwise. Free with the function of the same noun; NULL is fine. Every input is copied or counted
 *            during the call. Outputs of handles are NULL after a failure.
 * NULL       A pointer may be NULL only where the comment says so. A handle of another kind gives SITTER_E_WRONG_HANDLE, often
 *            a freed one too; that is a help, not a guarantee.
 * Text       UTF-8, NUL-terminated. Paths too, on every system.
 * Buffers    f(..., buffer, capacity, &needed, &err): (NULL, 0) asks for the size; too small a buffer is left as it is and gives
 *            SITTER_E_BUFFER_TOO_SMALL with the size in needed, which may be NULL if there is a buffer.
 * Long calls Block, and take a sitter_run *, which may be NULL. Its event function runs on the calling thread, after each step
 *            and at least every 100 ms; only SITTER_CONTINUE lets the call go on. sitter_run_cancel may come from any thread.
 *            After SITTER_E_CANCELLED the model is as good as new.
 * Process    No output to standard streams, no signal handlers, no environment or locale changes, no network. The library is
 *            not unloaded by dlclose. In a forked child every object of the parent gives SITTER_E_FORKED; what the child
 *            opens itself works on the CPU, if no other thread was in a call when it was forked. One known exception to never
 *            ending the process: when the system has no memory left for a computation on the CPU.
 */
