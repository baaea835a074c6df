CODE(fake_sum)
CODE(fake_absent)
TEXT(fake_name)
