/* The native methods of org.capprune.core.caption.NativeInterpreter over the C API of TFLite.
 *
 * One call in, one call on: no memory of its own, no C library, so that it compiles without an NDK.
 * The Java side checks names and sizes, and frees what it makes.
 */
#include <jni.h>

typedef struct TfLiteModel TfLiteModel;
typedef struct TfLiteInterpreterOptions TfLiteInterpreterOptions;
typedef struct TfLiteInterpreter TfLiteInterpreter;
typedef struct TfLiteTensor TfLiteTensor;
typedef struct TfLiteDelegate TfLiteDelegate;

/* Of tensorflow/lite/c/c_api.h; statuses are enums of which 0 is success. */
extern const char *TfLiteVersion(void);
extern TfLiteModel *TfLiteModelCreate(const void *data, __SIZE_TYPE__ size);
extern void TfLiteModelDelete(TfLiteModel *model);
extern TfLiteInterpreterOptions *TfLiteInterpreterOptionsCreate(void);
extern void TfLiteInterpreterOptionsDelete(TfLiteInterpreterOptions *options);
extern void TfLiteInterpreterOptionsSetNumThreads(TfLiteInterpreterOptions *options, int threads);
extern void TfLiteInterpreterOptionsAddDelegate(TfLiteInterpreterOptions *options, TfLiteDelegate *delegate);
/* Of tensorflow/lite/delegates/xnnpack/xnnpack_delegate.h. What stands behind the first member differs between versions; it is
 * larger than two registers in all of them, so that it comes through memory, and is smaller than this. */
typedef struct {
    jint num_threads;
    jint rest[255];
} XnnpackOptions;
extern XnnpackOptions TfLiteXNNPackDelegateOptionsDefault(void);
extern TfLiteDelegate *TfLiteXNNPackDelegateCreate(const XnnpackOptions *options);
extern void TfLiteXNNPackDelegateDelete(TfLiteDelegate *delegate);
extern TfLiteInterpreter *TfLiteInterpreterCreate(const TfLiteModel *model, const TfLiteInterpreterOptions *options);
extern void TfLiteInterpreterDelete(TfLiteInterpreter *interpreter);
extern int TfLiteInterpreterAllocateTensors(TfLiteInterpreter *interpreter);
extern int TfLiteInterpreterInvoke(TfLiteInterpreter *interpreter);
extern TfLiteTensor *TfLiteInterpreterGetInputTensor(const TfLiteInterpreter *interpreter, int place);
extern const TfLiteTensor *TfLiteInterpreterGetOutputTensor(const TfLiteInterpreter *interpreter, int place);
extern __SIZE_TYPE__ TfLiteTensorByteSize(const TfLiteTensor *tensor);
extern void *TfLiteTensorData(const TfLiteTensor *tensor);

#define METHOD(type, name) JNIEXPORT type JNICALL Java_org_capprune_core_caption_NativeInterpreter_##name
#define AS(type, address) ((type *)(__UINTPTR_TYPE__)(address))
#define ADDRESS(pointer) ((jlong)(__UINTPTR_TYPE__)(pointer))

METHOD(jstring, version)(JNIEnv *env, jclass type) {
    return (*env)->NewStringUTF(env, TfLiteVersion());
}

METHOD(jlong, createModel)(JNIEnv *env, jclass type, jobject data, jlong size) {
    void *start = (*env)->GetDirectBufferAddress(env, data);
    return start ? ADDRESS(TfLiteModelCreate(start, (__SIZE_TYPE__)size)) : 0;
}

METHOD(jlong, createDelegate)(JNIEnv *env, jclass type, jint threads) {
    XnnpackOptions options = TfLiteXNNPackDelegateOptionsDefault();
    options.num_threads = threads;
    return ADDRESS(TfLiteXNNPackDelegateCreate(&options));
}

METHOD(jlong, createInterpreter)(JNIEnv *env, jclass type, jlong model, jlong delegate, jint threads) {
    TfLiteInterpreterOptions *options = TfLiteInterpreterOptionsCreate();
    TfLiteInterpreterOptionsSetNumThreads(options, threads);
    TfLiteInterpreterOptionsAddDelegate(options, AS(TfLiteDelegate, delegate));
    TfLiteInterpreter *interpreter = TfLiteInterpreterCreate(AS(TfLiteModel, model), options);
    TfLiteInterpreterOptionsDelete(options);
    return ADDRESS(interpreter);
}

METHOD(jint, allocate)(JNIEnv *env, jclass type, jlong interpreter) {
    return TfLiteInterpreterAllocateTensors(AS(TfLiteInterpreter, interpreter));
}

METHOD(jlong, input)(JNIEnv *env, jclass type, jlong interpreter, jint place) {
    return ADDRESS(TfLiteInterpreterGetInputTensor(AS(TfLiteInterpreter, interpreter), place));
}

METHOD(jlong, output)(JNIEnv *env, jclass type, jlong interpreter, jint place) {
    return ADDRESS(TfLiteInterpreterGetOutputTensor(AS(TfLiteInterpreter, interpreter), place));
}

METHOD(jlong, bytes)(JNIEnv *env, jclass type, jlong tensor) {
    return (jlong)TfLiteTensorByteSize(AS(TfLiteTensor, tensor));
}

METHOD(void, writeFloats)(JNIEnv *env, jclass type, jlong tensor, jint offset, jfloatArray values) {
    jsize count = (*env)->GetArrayLength(env, values);
    (*env)->GetFloatArrayRegion(env, values, 0, count, (jfloat *)TfLiteTensorData(AS(TfLiteTensor, tensor)) + offset);
}

METHOD(void, writeInt)(JNIEnv *env, jclass type, jlong tensor, jint value) {
    *(jint *)TfLiteTensorData(AS(TfLiteTensor, tensor)) = value;
}

METHOD(void, readFloats)(JNIEnv *env, jclass type, jlong tensor, jfloatArray into) {
    jsize count = (*env)->GetArrayLength(env, into);
    (*env)->SetFloatArrayRegion(env, into, 0, count, (const jfloat *)TfLiteTensorData(AS(TfLiteTensor, tensor)));
}

METHOD(jint, invoke)(JNIEnv *env, jclass type, jlong interpreter) {
    return TfLiteInterpreterInvoke(AS(TfLiteInterpreter, interpreter));
}

METHOD(void, deleteInterpreter)(JNIEnv *env, jclass type, jlong interpreter) {
    TfLiteInterpreterDelete(AS(TfLiteInterpreter, interpreter));
}

METHOD(void, deleteDelegate)(JNIEnv *env, jclass type, jlong delegate) {
    TfLiteXNNPackDelegateDelete(AS(TfLiteDelegate, delegate));
}

METHOD(void, deleteModel)(JNIEnv *env, jclass type, jlong model) {
    TfLiteModelDelete(AS(TfLiteModel, model));
}
