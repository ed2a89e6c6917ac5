def known(*a):
    return False
