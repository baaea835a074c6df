"""Constants, types and prototypes of the C ABI. Made from src/capi by tests/abi/bindings.rs; do not edit."""
from __future__ import annotations

from ctypes import (CFUNCTYPE, POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_size_t, c_uint8, c_uint32,
                    c_uint64, c_void_p)
from typing import Any

LOG_OFF = 0
LOG_ERROR = 1
LOG_WARN = 2
LOG_INFO = 3
LOG_DEBUG = 4
ROLE_PICTURE = 1
ROLE_REFERENCE = 2
ROLE_CLASS_PICTURE = 3
ROLE_UNTOUCHED = 4
STAGE_WAITING = 1
STAGE_OPEN = 2
STAGE_ENCODE = 3
STAGE_PRIOR = 4
STAGE_EMBEDDING = 5
STAGE_LAYERS = 6
STAGE_SAMPLE = 7
STAGE_SCORE = 8
STAGE_DECODE = 9
CONTINUE = 1
OK = 0
E_NULL_POINTER = 101
E_INVALID_ARGUMENT = 102
E_WRONG_HANDLE = 103
E_INVALID_STATE = 104
E_BUFFER_TOO_SMALL = 105
E_REENTRANT = 106
E_WRONG_MODEL = 107
E_IO = 201
E_NOT_FOUND = 202
E_RESOURCE_EXHAUSTED = 203
E_DEVICE = 204
E_BAD_FORMAT = 301
E_UNSUPPORTED_MODEL = 302
E_SHAPE_MISMATCH = 303
E_CORRUPT = 304
E_CANCELLED = 401
E_NOT_SUPPORTED = 501
E_ABI_MISMATCH = 502
E_FORKED = 503
E_INTERNAL = 901
E_PANIC = 902
ABI_MAJOR = 1
ABI_MINOR = 1


class Event(Structure):
    _fields_ = [("struct_size", c_uint32), ("stage", c_int32), ("done", c_uint64), ("total", c_uint64),
                ("elapsed_ms", c_uint64), ("value", c_double), ("item", c_uint32), ("item_count", c_uint32),
                ("warnings", c_uint64)]


EVENT_FN = CFUNCTYPE(c_int32, c_void_p, POINTER(Event))
LOG_FN = CFUNCTYPE(None, c_void_p, c_int32, c_char_p)
DROP_FN = CFUNCTYPE(None, c_void_p)

# name: (result, arguments)
PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "sitter_abi_version": (c_uint32, []),
    "sitter_build_info_json": (c_char_p, []),
    "sitter_dataset_add": (c_int32, [c_void_p, c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_dataset_count": (c_int32, [c_void_p, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_dataset_free": (None, [c_void_p]),
    "sitter_dataset_new": (c_int32, [POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_devices_json": (c_int32, [c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_engine_drain_log": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_engine_free": (None, [c_void_p]),
    "sitter_engine_new": (c_int32, [c_void_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_engine_options_free": (None, [c_void_p]),
    "sitter_engine_options_new": (c_int32, [POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_engine_options_set_log": (c_int32, [c_void_p, LOG_FN, c_void_p, DROP_FN, POINTER(c_void_p)]),
    "sitter_engine_options_set_log_level": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_engine_options_set_max_jobs": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_engine_options_set_threads": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_engine_ref": (c_void_p, [c_void_p]),
    "sitter_error_detail": (c_char_p, [c_void_p]),
    "sitter_error_free": (None, [c_void_p]),
    "sitter_error_message": (c_char_p, [c_void_p]),
    "sitter_error_status": (c_int32, [c_void_p]),
    "sitter_evaluation_add_file": (c_int32, [c_void_p, c_int32, c_char_p, c_char_p, POINTER(c_void_p)]),
    "sitter_evaluation_add_image": (c_int32, [c_void_p, c_int32, c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_evaluation_free": (None, [c_void_p]),
    "sitter_evaluation_new": (c_int32, [POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_evaluation_set_identifier": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_evaluation_set_protocol": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_evaluator_clip_image": (c_int32, [c_void_p, POINTER(c_void_p), c_size_t, c_void_p, POINTER(c_float), c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_evaluator_clip_text": (c_int32, [c_void_p, POINTER(c_char_p), c_size_t, c_void_p, POINTER(c_float), c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_evaluator_dino": (c_int32, [c_void_p, POINTER(c_void_p), c_size_t, c_void_p, POINTER(c_float), c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_evaluator_free": (None, [c_void_p]),
    "sitter_evaluator_info_json": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_evaluator_open": (c_int32, [c_void_p, c_void_p, c_void_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_evaluator_options_free": (None, [c_void_p]),
    "sitter_evaluator_options_get_json": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_evaluator_options_new": (c_int32, [POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_evaluator_options_set_clip": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_evaluator_options_set_dino": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_evaluator_options_set_lpips": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_evaluator_ref": (c_void_p, [c_void_p]),
    "sitter_evaluator_score": (c_int32, [c_void_p, c_void_p, c_void_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_has_feature": (c_int32, [c_char_p]),
    "sitter_image_copy_f32": (c_int32, [c_void_p, POINTER(c_float), c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_image_copy_rgb8": (c_int32, [c_void_p, POINTER(c_uint8), c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_image_decode": (c_int32, [c_void_p, c_void_p, c_void_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_image_free": (None, [c_void_p]),
    "sitter_image_from_f32": (c_int32, [POINTER(c_float), c_uint32, c_uint32, c_size_t, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_image_from_rgb8": (c_int32, [POINTER(c_uint8), c_uint32, c_uint32, c_size_t, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_image_from_rgba8": (c_int32, [POINTER(c_uint8), c_uint32, c_uint32, c_size_t, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_image_open": (c_int32, [c_char_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_image_ref": (c_void_p, [c_void_p]),
    "sitter_image_save_png": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_image_size": (c_int32, [c_void_p, POINTER(c_uint32), POINTER(c_uint32), POINTER(c_void_p)]),
    "sitter_model_estimate_json": (c_int32, [c_char_p, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_model_free": (None, [c_void_p]),
    "sitter_model_info_json": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_model_open": (c_int32, [c_void_p, c_char_p, c_void_p, c_void_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_model_options_free": (None, [c_void_p]),
    "sitter_model_options_get_json": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_model_options_new": (c_int32, [POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_model_options_set_device": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_model_options_set_dtype": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_model_options_set_keep_quantised": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_model_options_set_text_encoder": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_model_ref": (c_void_p, [c_void_p]),
    "sitter_require_abi": (c_int32, [c_uint32, c_uint32, POINTER(c_void_p)]),
    "sitter_run_cancel": (None, [c_void_p]),
    "sitter_run_finish_early": (None, [c_void_p]),
    "sitter_run_free": (None, [c_void_p]),
    "sitter_run_new": (c_int32, [POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_run_set_callback": (c_int32, [c_void_p, EVENT_FN, c_void_p, POINTER(c_void_p)]),
    "sitter_run_snapshot": (c_int32, [c_void_p, POINTER(Event), c_size_t, POINTER(c_void_p)]),
    "sitter_run_tokens": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_sample_options_for_folder": (c_int32, [c_char_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_sample_options_free": (None, [c_void_p]),
    "sitter_sample_options_get_json": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_sample_options_new": (c_int32, [c_void_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_sample_options_set_decoding": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_sample_options_set_guidance": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_sample_options_set_guidance_by_scale": (c_int32, [c_void_p, POINTER(c_float), c_size_t, POINTER(c_void_p)]),
    "sitter_sample_options_set_height": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_sample_options_set_seed": (c_int32, [c_void_p, c_uint64, POINTER(c_void_p)]),
    "sitter_sample_options_set_temperature": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_sample_options_set_temperature_by_scale": (c_int32, [c_void_p, POINTER(c_float), c_size_t, POINTER(c_void_p)]),
    "sitter_sample_options_set_top_k": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_sample_options_set_top_p": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_sample_options_set_width": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_sample_options_set_window": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_scores_free": (None, [c_void_p]),
    "sitter_scores_json": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_scores_ref": (c_void_p, [c_void_p]),
    "sitter_status_name": (c_char_p, [c_int32]),
    "sitter_subject_free": (None, [c_void_p]),
    "sitter_subject_info_json": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_subject_load": (c_int32, [c_char_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_subject_losses": (c_int32, [c_void_p, POINTER(c_int32), POINTER(c_uint64), POINTER(c_double), c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_subject_ref": (c_void_p, [c_void_p]),
    "sitter_subject_save": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_subject_train": (c_int32, [c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_tokens_copy": (c_int32, [c_void_p, POINTER(c_uint32), c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_tokens_encode": (c_int32, [c_void_p, c_void_p, c_uint32, c_void_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_tokens_free": (None, [c_void_p]),
    "sitter_tokens_from_array": (c_int32, [POINTER(c_uint32), c_uint32, c_uint32, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_tokens_from_grids": (c_int32, [POINTER(c_uint32), POINTER(c_uint32), POINTER(c_uint32), c_size_t, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_tokens_grid": (c_int32, [c_void_p, POINTER(c_uint32), POINTER(c_uint32), POINTER(c_void_p)]),
    "sitter_tokens_grid_at": (c_int32, [c_void_p, c_size_t, POINTER(c_uint32), POINTER(c_uint32), POINTER(c_void_p)]),
    "sitter_tokens_grid_count": (c_int32, [c_void_p, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_tokens_ref": (c_void_p, [c_void_p]),
    "sitter_tokens_sample": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p), c_size_t, c_void_p, c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_void_p)]),
    "sitter_tokens_score": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p), c_size_t, POINTER(c_void_p), c_size_t, c_void_p, POINTER(c_double), POINTER(c_void_p)]),
    "sitter_train_options_for_folder": (c_int32, [c_char_p, c_char_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_train_options_free": (None, [c_void_p]),
    "sitter_train_options_get_json": (c_int32, [c_void_p, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_void_p)]),
    "sitter_train_options_new": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p), POINTER(c_void_p)]),
    "sitter_train_options_set_accumulation": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_adaptation": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_augment": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_augment_aligned": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_train_options_set_batch_size": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_beta1": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_beta2": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_checkpoint_every": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_checkpoint_path": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_class_word": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_clip_norm": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_cooldown_steps": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_dropout": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_early_stop": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_embedding_learning_rate": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_embedding_steps": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_embedding_vectors": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_flip": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_train_options_set_guidance_dropout": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_identifier": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_image_size": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_initial_embedding": (c_int32, [c_void_p, POINTER(c_float), c_size_t, POINTER(c_void_p)]),
    "sitter_train_options_set_initial_noise": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_initial_word": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_keep_gradients": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_train_options_set_layer_learning_rate": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_layer_steps": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_layer_stride": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_layers": (c_int32, [c_void_p, POINTER(c_uint32), c_size_t, POINTER(c_void_p)]),
    "sitter_train_options_set_lora_alpha": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_lora_rank": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_masked_training": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_train_options_set_master_weights": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_train_options_set_optimizer_device": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_optimizer_state": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_per_image_tokens": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_train_options_set_prior_count": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_prior_distillation": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_train_options_set_prior_weight": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_random_crop": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_train_options_set_recompute": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_sample_every": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_sample_prompt": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_scale_weights": (c_int32, [c_void_p, POINTER(c_float), c_size_t, POINTER(c_void_p)]),
    "sitter_train_options_set_seed": (c_int32, [c_void_p, c_uint64, POINTER(c_void_p)]),
    "sitter_train_options_set_self_correction": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_teacher": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_templates": (c_int32, [c_void_p, POINTER(c_char_p), c_size_t, POINTER(c_void_p)]),
    "sitter_train_options_set_train_embedding_in_layer_stage": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_train_options_set_trainable": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "sitter_train_options_set_use_class_word": (c_int32, [c_void_p, c_int32, POINTER(c_void_p)]),
    "sitter_train_options_set_warmup_steps": (c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "sitter_train_options_set_weight_decay": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_train_options_set_z_loss": (c_int32, [c_void_p, c_double, POINTER(c_void_p)]),
    "sitter_version_string": (c_char_p, []),
}
