class device:
    def __init__(self, name, index=None):
        self.type, self.index = name.split(":")[0], index


class nn:
    class Module:
        pass


def from_numpy(array):
    return array
