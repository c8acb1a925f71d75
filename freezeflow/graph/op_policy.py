"""Which ops may run inside freezeflow: folding and validating are the only steps that run any.

Allow-lists, because TensorFlow's own marks do not tell: ``DebugIdentity`` is not stateful, so a
folder would run it, and it writes files; ``PrintV2`` writes where its attribute says. An op is here
because its kernel computes from its inputs and touches nothing else. Loading and freezing run nothing
and ask for nothing of this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from freezeflow.errors import ModelRefused
from freezeflow.graph import attrs
from freezeflow.graph.graph import Graph, Node
from freezeflow.graph.walk import function_order, reached_functions, reached_nodes

# The same bytes come out that went in: nothing has to be evaluated, however large the tensor.
SAME_VALUE = frozenset(["Identity", "IdentityN", "StopGradient", "PreventGradient", "Snapshot"])
SAME_BYTES = SAME_VALUE | frozenset(["Reshape", "ExpandDims", "Squeeze"])

_ELEMENTWISE = """
    Abs Acos Acosh Add AddN AddV2 Angle ApproximateEqual Asin Asinh Atan Atan2 Atanh
    BesselI0 BesselI0e BesselI1 BesselI1e Betainc BitwiseAnd BitwiseOr BitwiseXor Cast Ceil
    ClipByValue Complex ComplexAbs Conj Cos Cosh Digamma Div DivNoNan Elu Equal Erf Erfc Erfinv Exp
    Expm1 Floor FloorDiv FloorMod Greater GreaterEqual Igamma Igammac Imag Inv Invert IsFinite IsInf
    IsNan LeakyRelu LeftShift Less LessEqual Lgamma Log Log1p LogicalAnd LogicalNot LogicalOr Maximum
    Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual OnesLike Polygamma PopulationCount Pow Real
    RealDiv Reciprocal Relu Relu6 RightShift Rint Round Rsqrt Select SelectV2 Selu Sigmoid Sign Sin
    Sinh Softplus Softsign Sqrt Square SquaredDifference Sub Tan Tanh TruncateDiv TruncateMod Xdivy
    Xlog1py Xlogy ZerosLike Zeta
"""
_REDUCTIONS = """
    All Any ArgMax ArgMin Bincount Cumprod Cumsum CumulativeLogsumexp DenseBincount EuclideanNorm InTopK
    InTopKV2 L2Loss Max Mean Min NthElement Prod SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum
    Sum TopK TopKV2 UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum
"""
_SHAPES = """
    BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastGradientArgs BroadcastTo Bucketize Concat
    ConcatOffset ConcatV2 DataFormatDimMap DataFormatVecPermute DepthToSpace Diag DiagPart DynamicPartition
    DynamicStitch EnsureShape ExtractImagePatches Fill Gather GatherNd GatherV2 InvertPermutation LinSpace
    ListDiff LowerBound MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3
    MatrixDiagV2 MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad OneHot Pack Pad PadV2
    ParallelDynamicStitch Range Rank Reverse ReverseSequence ReverseV2 Roll ScatterNd Shape ShapeN Size
    Slice SpaceToBatch SpaceToBatchND SpaceToDepth SparseToDense Split SplitV StridedSlice TensorScatterAdd
    TensorScatterMax TensorScatterMin TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile
    Transpose Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2 Unpack UnravelIndex UpperBound Where
"""
_ALGEBRA = """
    BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd Cholesky Cross Einsum LogMatrixDeterminant MatMul
    MatrixDeterminant MatrixInverse MatrixSolve MatrixTriangularSolve
"""
_NETWORK = """
    AvgPool AvgPool3D Conv2D Conv2DBackpropInput Conv3D DepthwiseConv2dNative Dequantize
    FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel LogSoftmax MaxPool
    MaxPool3D MaxPoolV2 QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeV2
    Softmax
"""
# Growth of their strings is known (`foldable.string_bound`), so that a chain of them stays bounded.
_STRINGS = """
    AsString DecodeBase64 DecodeRaw EncodeBase64 ReduceJoin RegexFullMatch RegexReplace StaticRegexFullMatch
    StaticRegexReplace StringJoin StringLength StringLower StringSplit StringSplitV2 StringStrip
    StringToHashBucket StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper Substr
    UnicodeTranscode
"""

# Pure, deterministic, and defined by inputs and attributes alone: what may be replaced by its value.
FOLDABLE = SAME_BYTES | frozenset(
    f"{_ELEMENTWISE} {_REDUCTIONS} {_SHAPES} {_ALGEBRA} {_NETWORK} {_STRINGS}".split()
)

_GRAPH = """
    Assert BatchFunction Case CheckNumerics Const ControlTrigger DummySeedGenerator Empty EmptyTensorList
    EmptyTensorMap Enter Exit FakeParam For GuaranteeConst If LoopCond MapDefun Merge NextIteration NoOp
    PartitionedCall Placeholder PlaceholderV2 PlaceholderWithDefault Print PrintV2 RefEnter RefExit
    RefIdentity RefMerge RefNextIteration RefSelect RefSwitch StatefulPartitionedCall StatelessCase
    StatelessIf StatelessWhile Switch SymbolicGradient While _ReadVariablesOp _VarHandlesOp
"""
_VARIABLES = """
    Assign AssignAdd AssignAddVariableOp AssignSub AssignSubVariableOp AssignVariableOp
    CountUpTo DestroyResourceOp DestroyTemporaryVariable DisableCopyOnRead
    IsVariableInitialized ReadVariableOp ResourceCountUpTo ResourceGather ResourceGatherNd
    ResourceScatterAdd ResourceScatterDiv ResourceScatterMax ResourceScatterMin ResourceScatterMul
    ResourceScatterNdAdd ResourceScatterNdMax ResourceScatterNdMin ResourceScatterNdSub
    ResourceScatterNdUpdate ResourceScatterSub ResourceScatterUpdate ResourceStridedSliceAssign ScatterAdd
    ScatterDiv ScatterMax ScatterMin ScatterMul ScatterNdAdd ScatterNdMax ScatterNdMin ScatterNdSub
    ScatterNdUpdate ScatterSub ScatterUpdate TemporaryVariable VarHandleOp VarIsInitializedOp Variable
    VariableShape VariableV2
"""
# Reading a checkpoint and a vocabulary is part of loading the original model; both only read.
_LOADING = """
    InitializeTable InitializeTableFromTextFile InitializeTableFromTextFileV2 InitializeTableV2 Restore
    RestoreSlice RestoreV2 ShardedFilename
"""
_CONTAINERS = """
    HashTable HashTableV2 LookupTableExport LookupTableExportV2 LookupTableFind LookupTableFindV2
    LookupTableImport LookupTableImportV2 LookupTableInsert LookupTableInsertV2 LookupTableRemoveV2
    LookupTableSize LookupTableSizeV2 MutableDenseHashTable MutableDenseHashTableV2 MutableHashTable
    MutableHashTableOfTensors MutableHashTableOfTensorsV2 MutableHashTableV2 OptionalFromValue
    OptionalGetValue OptionalHasValue OptionalNone Stack StackClose StackCloseV2 StackPop StackPopV2
    StackPush StackPushV2 StackV2 TensorArray TensorArrayClose TensorArrayCloseV2 TensorArrayCloseV3
    TensorArrayConcat TensorArrayConcatV2 TensorArrayConcatV3 TensorArrayGather TensorArrayGatherV2
    TensorArrayGatherV3 TensorArrayGrad TensorArrayGradV2 TensorArrayGradV3 TensorArrayGradWithShape
    TensorArrayPack TensorArrayRead TensorArrayReadV2 TensorArrayReadV3
    TensorArrayScatter TensorArrayScatterV2 TensorArrayScatterV3 TensorArraySize TensorArraySizeV2
    TensorArraySizeV3 TensorArraySplit TensorArraySplitV2 TensorArraySplitV3 TensorArrayUnpack
    TensorArrayV2 TensorArrayV3 TensorArrayWrite TensorArrayWriteV2 TensorArrayWriteV3 TensorListConcat
    TensorListConcatLists TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather
    TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack TensorListPushBackBatch
    TensorListReserve TensorListResize TensorListScatter TensorListScatterIntoExistingList
    TensorListScatterV2 TensorListSetItem TensorListSplit TensorListStack TensorMapErase TensorMapHasKey
    TensorMapInsert TensorMapLookup TensorMapSize TensorMapStackKeys
"""
_RANDOM = """
    Multinomial NonDeterministicInts ParameterizedTruncatedNormal RandomCrop RandomGamma RandomGammaGrad
    RandomIndexShuffle RandomPoisson RandomPoissonV2 RandomShuffle RandomStandardNormal RandomUniform
    RandomUniformInt RngReadAndSkip RngSkip SampleDistortedBoundingBox SampleDistortedBoundingBoxV2
    StatefulRandomBinomial StatefulStandardNormal StatefulStandardNormalV2 StatefulTruncatedNormal
    StatefulUniform StatefulUniformFullInt StatefulUniformInt StatelessMultinomial
    StatelessParameterizedTruncatedNormal StatelessRandomBinomial StatelessRandomGammaV2
    StatelessRandomGammaV3 StatelessRandomGetAlg StatelessRandomGetKeyCounter
    StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2 StatelessRandomPoisson
    StatelessRandomUniform StatelessRandomUniformFullInt StatelessRandomUniformFullIntV2
    StatelessRandomUniformInt StatelessRandomUniformIntV2 StatelessRandomUniformV2
    StatelessSampleDistortedBoundingBox StatelessShuffle StatelessTruncatedNormal
    StatelessTruncatedNormalV2 TruncatedNormal UniformCandidateSampler LogUniformCandidateSampler
"""
_MATHEMATICS = """
    BandedTriangularSolve BatchCholesky BatchFFT BatchFFT2D BatchFFT3D BatchIFFT BatchIFFT2D BatchIFFT3D
    BatchMatrixBandPart BatchMatrixDeterminant BatchMatrixDiag BatchMatrixDiagPart BatchMatrixInverse
    BatchMatrixSetDiag BatchMatrixSolve BatchMatrixSolveLs BatchMatrixTriangularSolve BatchSelfAdjointEig
    BatchSelfAdjointEigV2 BatchSvd BesselJ0 BesselJ1 BesselK0 BesselK0e BesselK1 BesselK1e BesselY0 BesselY1
    CholeskyGrad ConjugateTranspose CropAndResizeGradBoxes CropAndResizeGradImage Dawsn Eig EluGrad Expint
    FFT FFT2D FFT3D FFTND FresnelCos FresnelSin HistogramFixedWidth IFFT IFFT2D IFFT3D IFFTND IRFFT IRFFT2D
    IRFFT3D IRFFTND IgammaGradA InplaceAdd InplaceSub InplaceUpdate InvGrad IsotonicRegression LeakyReluGrad
    Lu MakeUnique MatrixExponential MatrixLogarithm MatrixSolveLs MatrixSquareRoot ParallelConcat Qr RFFT
    RFFT2D RFFT3D RFFTND ReciprocalGrad Relu6Grad ReluGrad RsqrtGrad SegmentMaxV2 SegmentMinV2
    SegmentProdV2 SegmentSumV2 SelfAdjointEig SelfAdjointEigV2 SeluGrad SigmoidGrad SobolSample
    SoftplusGrad SoftsignGrad Spence SqrtGrad StridedSliceAssign StridedSliceGrad Svd TanhGrad TileGrad
    ToBool TopKUnique TopKWithUnique TridiagonalMatMul TridiagonalSolve
"""
_LAYERS = """
    AccumulateNV2 ApproxTopK AvgPool3DGrad AvgPoolGrad BatchNormWithGlobalNormalization BiasAddGrad BiasAddV1
    BlockLSTM BlockLSTMGrad BlockLSTMGradV2 BlockLSTMV2 Conv Conv2DBackpropFilter Conv2DBackpropFilterV2
    Conv2DBackpropInputV2 Conv3DBackpropFilter Conv3DBackpropFilterV2 Conv3DBackpropInput
    Conv3DBackpropInputV2 CTCBeamSearchDecoder CTCGreedyDecoder CTCLoss CTCLossV2
    DepthwiseConv2dNativeBackpropFilter DepthwiseConv2dNativeBackpropInput Dilation2D ExtractVolumePatches
    FractionalAvgPool FractionalMaxPool FusedBatchNorm FusedBatchNormGrad FusedBatchNormGradV2
    FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 FusedPadConv2D FusedResizeAndPadConv2D
    GRUBlockCell GRUBlockCellGrad LRN LRNGrad LSTMBlockCell LSTMBlockCellGrad MaxPoolGrad
    MaxPoolWithArgmax MirrorPadGrad QuantizeAndDequantize QuantizeDownAndShrinkRange QuantizedAdd
    QuantizedAvgPool QuantizedBatchNormWithGlobalNormalization QuantizedBiasAdd QuantizedConcat
    QuantizedConcatV2 QuantizedConv2D QuantizedInstanceNorm QuantizedMatMul QuantizedMaxPool QuantizedMul
    QuantizedRelu QuantizedRelu6 QuantizedReluX QuantizedReshape QuantizedResizeBilinear
    RequantizationRange RequantizationRangePerChannel Requantize RequantizePerChannel
    SoftmaxCrossEntropyWithLogits SparseSoftmaxCrossEntropyWithLogits UniformDequantize UniformQuantize
    UniformQuantizedAdd UniformQuantizedClipByValue UniformQuantizedConvolution
    UniformQuantizedConvolutionHybrid UniformQuantizedDot UniformQuantizedDotHybrid UniformRequantize
    XlaConvV2 XlaDotV2 XlaDynamicSlice XlaDynamicUpdateSlice XlaEinsum XlaGather XlaPad
"""
_SPARSE_AND_RAGGED = """
    CSRSparseMatrixComponents CSRSparseMatrixToDense CSRSparseMatrixToSparseTensor
    CompositeTensorVariantFromComponents CompositeTensorVariantToComponents DenseCountSparseOutput
    DenseToCSRSparseMatrix DenseToDenseSetOperation DenseToSparseSetOperation DeserializeManySparse
    DeserializeSparse EditDistance RaggedBincount RaggedCountSparseOutput RaggedCross RaggedFillEmptyRows
    RaggedGather RaggedRange RaggedTensorFromVariant RaggedTensorToSparse RaggedTensorToTensor
    RaggedTensorToVariant RaggedTensorToVariantGradient SerializeManySparse SerializeSparse SetSize SparseAdd
    SparseBincount SparseConcat SparseCountSparseOutput SparseCross SparseCrossHashed SparseCrossV2
    SparseDenseCwiseAdd SparseDenseCwiseDiv SparseDenseCwiseMul SparseFillEmptyRows SparseMatMul
    SparseMatrixAdd SparseMatrixMatMul SparseMatrixMul SparseMatrixNNZ SparseMatrixSoftmax
    SparseMatrixSparseMatMul SparseMatrixTranspose SparseMatrixZeros SparseReduceMax SparseReduceMaxSparse
    SparseReduceSum SparseReduceSumSparse SparseReorder SparseReshape SparseSegmentMean
    SparseSegmentMeanWithNumSegments SparseSegmentSqrtN SparseSegmentSqrtNWithNumSegments SparseSegmentSum
    SparseSegmentSumWithNumSegments SparseSlice SparseSoftmax SparseSparseMaximum SparseSparseMinimum
    SparseSplit SparseTensorDenseAdd SparseTensorDenseMatMul SparseTensorToCSRSparseMatrix
    SparseToSparseSetOperation
"""
_TEXT_AND_EXAMPLES = """
    AsString AudioSummaryV2 DecodeBase64 DecodeCSV DecodeCompressed DecodeJSONExample DecodePaddedRaw
    DecodeRaw EncodeBase64 Fingerprint HistogramSummary ImageSummary MergeSummary ParseExample
    ParseExampleV2 ParseSequenceExample ParseSequenceExampleV2 ParseSingleExample
    ParseSingleSequenceExample ParseTensor ReduceJoin RegexFullMatch RegexReplace ScalarSummary
    SerializeTensor StaticRegexFullMatch StaticRegexReplace StringFormat StringNGrams StringSplit
    StringSplitV2 StringToHashBucket StringToHashBucketStrong StringToNumber TensorSummary TensorSummaryV2
    UnicodeDecode UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode
    UnsortedSegmentJoin
"""
_IMAGES_AND_SOUND = """
    AdjustContrast AdjustContrastv2 AdjustHue AdjustSaturation AudioSpectrogram CombinedNonMaxSuppression
    CropAndResize DecodeAndCropJpeg DecodeBmp DecodeGif DecodeImage DecodeJpeg DecodePng DecodeWav DecodeWebP
    DrawBoundingBoxes DrawBoundingBoxesV2 EncodeJpeg EncodeJpegVariableQuality EncodePng EncodeWav
    ExtractGlimpse ExtractGlimpseV2 ExtractJpegShape GenerateBoundingBoxProposals HSVToRGB
    ImageProjectiveTransformV2 ImageProjectiveTransformV3 Mfcc NonMaxSuppression NonMaxSuppressionV2
    NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5 NonMaxSuppressionWithOverlaps RGBToHSV
    ResizeArea ResizeBicubic ResizeBicubicGrad ResizeBilinear ResizeBilinearGrad ResizeNearestNeighbor
    ResizeNearestNeighborGrad ScaleAndTranslate ScaleAndTranslateGrad
"""
# In-memory pipelines only: no data set that reads or writes files, and none that serves or caches.
_DATA_SETS = """
    AnonymousIteratorV2 AnonymousIteratorV3 AssertCardinalityDataset BatchDataset BatchDatasetV2
    ConcatenateDataset DatasetCardinality DatasetToSingleElement DeleteIterator DenseToSparseBatchDataset
    DirectedInterleaveDataset FilterDataset FinalizeDataset FlatMapDataset GetOptions
    GroupByReducerDataset GroupByWindowDataset IgnoreErrorsDataset InterleaveDataset IteratorGetNext
    IteratorGetNextAsOptional IteratorGetNextSync MakeIterator MapAndBatchDataset MapDataset ModelDataset
    OptionalFromValue OptionalGetValue OptionalHasValue OptionalNone OptionsDataset PaddedBatchDataset
    PaddedBatchDatasetV2 ParallelBatchDataset ParallelFilterDataset ParallelInterleaveDatasetV2
    ParallelInterleaveDatasetV3 ParallelInterleaveDatasetV4 ParallelMapDataset ParallelMapDatasetV2
    PrefetchDataset RangeDataset RebatchDataset RebatchDatasetV2 ReduceDataset RepeatDataset
    RewriteDataset ScanDataset ShardDataset SkipDataset SlidingWindowDataset SparseTensorSliceDataset
    TakeDataset TakeWhileDataset TensorDataset TensorSliceDataset UnbatchDataset UniqueDataset
    UnwrapDatasetVariant WindowDataset WindowOp WrapDatasetVariant ZipDataset
"""

# What may answer otherwise each time (those with a seed of their own do not).
RANDOM = frozenset(_RANDOM.split())

# What may run when a model is validated.
RUNNABLE = FOLDABLE | frozenset(
    " ".join(
        (
            *(_GRAPH, _VARIABLES, _LOADING, _CONTAINERS, _RANDOM, _MATHEMATICS, _LAYERS),
            *(_SPARSE_AND_RAGGED, _TEXT_AND_EXAMPLES, _IMAGES_AND_SOUND, _DATA_SETS),
        )
    ).split()
)

_NOT_REPEATABLE = """
    FractionalAvgPool FractionalMaxPool GenerateBoundingBoxProposals InplaceAdd InplaceSub InplaceUpdate
    ParallelConcat SobolSample
"""
# Pure and deterministic: of two such nodes with the same inputs one is enough. Beside what may be
# folded that is most of mathematics and layers; not what picks at random without being marked as
# stateful, and not what writes into its input.
REPEATABLE = (
    FOLDABLE
    | frozenset(f"{_MATHEMATICS} {_LAYERS} {_TEXT_AND_EXAMPLES} {_IMAGES_AND_SOUND}".split())
) - frozenset(_NOT_REPEATABLE.split())

# PrintV2 may also write to a file that its attribute names.
_PRINTV2_STREAMS = (b"stdout", b"stderr", b"log(info)", b"log(warning)", b"log(error)")


class Use(NamedTuple):
    """One node of a graph or of a function's body, as far as the policy looks at it.

    Args:
        path: Where it is: ``node``, or ``function/node``.
        op: Its op.
        attrs: Attribute name to ``AttrValue`` bytes.
    """

    path: str
    op: str
    attrs: Mapping[str, bytes]


def uses_of(graph: Graph) -> Iterator[Use]:
    """Every node of the graph and of every function that is reached from it."""
    yield from (Use(node.name, node.op, node.attrs) for node in graph.nodes.values())
    for name in sorted(reached_functions(graph, graph.nodes.values())):
        for node in graph.functions[name].nodes.values():
            yield Use(f"{name}/{node.name}", node.op, node.attrs)


def check_runs(graph: Graph, allowed: Collection[str] = (), mapped: Collection[str] = ()) -> None:
    """Refuses a graph that must not run: a function calls itself, or see `check_runnable`."""
    function_order(graph)
    check_runnable(uses_of(graph), graph.functions, allowed, mapped)


def check_runnable(
    uses: Iterable[Use],
    functions: Collection[str],
    allowed: Collection[str] = (),
    mapped: Collection[str] = (),
) -> None:
    """Refuses ops that are not known to be harmless.

    Args:
        uses: The nodes that would run.
        functions: Names of library functions; a node whose op is one of them is a call.
        allowed: Ops that the recipe allows by name.
        mapped: Paths that an ImmutableConst may name.

    Raises:
        ModelRefused: Names the first node of each op that is not allowed.
    """
    refused: dict[str, str] = {}
    for use in uses:
        is_call = use.op in functions
        if not is_call and use.op not in allowed and not is_runnable(use, mapped):
            refused.setdefault(use.op, use.path)
    if not refused:
        return
    ops = ", ".join(sorted(refused))
    raise ModelRefused(
        f"running the model would run ops that are not known to be harmless: {ops}",
        where=refused[min(refused)],
        hint="If you trust the model, allow them by name, with the reason: "
        f"validate: {{allow_ops: {{{min(refused)}: why it is fine}}}}",
    )


def is_runnable(use: Use, mapped: Collection[str] = ()) -> bool:
    """Whether the policy lets this node run; `mapped` as for `check_runnable`."""
    if use.op == "ImmutableConst":
        named = use.attrs.get("memory_region_name")
        return named is not None and attrs.to_bytes(named).decode(errors="replace") in mapped
    if use.op == "PrintV2" and "output_stream" in use.attrs:
        return attrs.to_bytes(use.attrs["output_stream"]) in _PRINTV2_STREAMS
    return use.op in RUNNABLE


def random_before(graph: Graph, tensor: str) -> Node | None:
    """A random op that lies before a tensor, also in a function; None where there is none."""
    nodes = [graph.nodes[name] for name in sorted(reached_nodes(graph.nodes, [tensor]))]
    bodies = (graph.functions[f].nodes.values() for f in reached_functions(graph, nodes))
    return next((node for body in (nodes, *bodies) for node in body if node.op in RANDOM), None)
