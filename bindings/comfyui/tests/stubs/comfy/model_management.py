import enum


class InterruptProcessingException(Exception):
    pass


class CPUState(enum.Enum):
    GPU = 0
    CPU = 1


cpu_state = CPUState.GPU
current_loaded_models = []
_interrupted = False


def interrupt_current_processing(value=True):
    global _interrupted
    _interrupted = value


def processing_interrupted():
    return _interrupted


def throw_exception_if_processing_interrupted():
    if _interrupted:
        interrupt_current_processing(False)
        raise InterruptProcessingException()


def load_models_gpu(models):
    pass


def free_memory(*_):
    pass


def minimum_inference_memory():
    return 0
