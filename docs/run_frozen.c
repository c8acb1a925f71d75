/* Runs a frozen graph by TensorFlow's C library: ./run_frozen digits.pb image probabilities */
#include <stdio.h>
#include <string.h>
#include <tensorflow/c/c_api.h>

static void keep(void *data, size_t length, void *argument) {}

int main(int count, char **arguments) {
  static char bytes[1 << 24];
  static float pixels[64];                       /* one image of 8 x 8, all black */
  const int64_t shape[] = {1, 8, 8, 1};
  FILE *file = fopen(arguments[1], "rb");
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_Buffer *data = TF_NewBufferFromString(bytes, fread(bytes, 1, sizeof bytes, file));
  TF_GraphImportGraphDef(graph, data, TF_NewImportGraphDefOptions(), status);
  TF_Session *session = TF_NewSession(graph, TF_NewSessionOptions(), status);
  TF_Output input = {TF_GraphOperationByName(graph, arguments[2]), 0};
  TF_Output output = {TF_GraphOperationByName(graph, arguments[3]), 0};
  TF_Tensor *given = TF_NewTensor(TF_FLOAT, shape, 4, pixels, sizeof pixels, keep, NULL), *found;
  TF_SessionRun(session, NULL, &input, &given, 1, &output, &found, 1, NULL, 0, NULL, status);
  if (TF_GetCode(status) != TF_OK) return fprintf(stderr, "%s\n", TF_Message(status));
  for (int i = 0; i < 10; i++) printf("%.6f ", ((float *)TF_TensorData(found))[i]);
  return 0;
}
