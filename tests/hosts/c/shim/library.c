/* Stands in for one of NVIDIA's libraries. */
int fake_sum(int a, long b, double c, unsigned char d, double *e, long f, float g, int h, long i, double j, int k)
{
    *e = a + b + c + d + f + g + h + i + j + k;
    return 77;
}

const char *fake_name(int code)
{
    return code == 5 ? "five" : "another";
}
