/* What the codec needs once per process. */
#ifndef CODEC_CODEC_H
#define CODEC_CODEC_H

/* Before the first other call into codec/ and before threads are started. */
void codec_init(void);

#endif
