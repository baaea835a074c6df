class PreviewImage:
    def __init__(self, image, cls=None):
        self.image = image


class PreviewText:
    def __init__(self, value):
        self.value = value
