class PromptServer:
    class instance:
        client_id = "client"
        texts = []

        @classmethod
        def send_progress_text(cls, text, node_id, sid=None):
            cls.texts.append((node_id, text))
